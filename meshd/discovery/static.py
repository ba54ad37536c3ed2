"""Static seeds.

`host:port` from the configuration, every address of each, looked up again and again for ever.

A seed that is an IP address needs no looking up; the node itself retries it for ever. A name is resolved
by the system's resolver (so /etc/hosts counts), since its addresses may change while we run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import trio

from meshd.config_address import Address, parse_address
from meshd.discovery.found import LOOKUP_TIMEOUT_S, AddAddresses, Attempts

WAY = "static"

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Every `host:port` of a host name and a port; raises OSError."""


async def run(
    seeds: Sequence[str],
    add_addresses: AddAddresses,
    *,
    resolve: Resolve | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hand over every address of all seeds, and go on doing so until cancelled."""
    names = []
    for seed in seeds:
        address = parse_address(seed, allow_port_zero=False)
        if _is_ip(address.host):
            add_addresses([str(address)], WAY)
        else:
            names.append(address)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(_follow, name, add_addresses, resolve or resolve_by_system)
        task_status.started()


async def _follow(seed: Address, add_addresses: AddAddresses, resolve: Resolve) -> None:
    attempts = Attempts(WAY, str(seed))
    while True:
        try:
            with trio.fail_after(LOOKUP_TIMEOUT_S):
                found = await resolve(seed.host, seed.port)
        except trio.TooSlowError:
            pause_s = attempts.failed(f"no answer within {LOOKUP_TIMEOUT_S:g} s")
        except OSError as err:
            pause_s = attempts.failed(err.strerror or str(err))
        else:
            add_addresses(found, WAY)
            pause_s = attempts.succeeded()
        await trio.sleep(pause_s)


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Ask the system's resolver for every IPv4 and IPv6 address of a name."""
    answers = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(Address(str(sockaddr[0]), port)) for *_, sockaddr in answers))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
