"""DNS: names whose A, AAAA or SRV records list the members, looked up again when the answer's life ends.

`host:port` asks for addresses; a name that begins with an underscore (`_meshd._tcp.example.org`) asks for
SRV records, which carry host names and ports, and then for the addresses of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

from meshd.config_address import Address, parse_address
from meshd.discovery.found import LOOK_AGAIN_S, LOOKUP_TIMEOUT_S, AddAddresses, Attempts

WAY = "dns"

#: Records of one answer that are followed: several times the largest mesh.
MAX_RECORDS = 4096


class LookupFailed(Exception):
    """A name has no answer at the moment; the sentence says why."""


class Service(NamedTuple):
    """One SRV record."""

    host: str
    port: int


class Lookup(Protocol):
    """The questions we ask the DNS. Each answer comes with its life time in seconds; raises LookupFailed."""

    async def addresses(self, host: str) -> tuple[list[str], float]:
        """IPv4 and IPv6 addresses of a host."""

    async def services(self, name: str) -> tuple[list[Service], float]:
        """The SRV records of a service name."""


class DnsLookup:
    """A `Lookup` by dnspython, with the system's name servers unless a resolver is given."""

    def __init__(self, resolver: dns.asyncresolver.Resolver | None = None) -> None:
        self._resolver = resolver

    async def addresses(self, host: str) -> tuple[list[str], float]:
        """Ask for A and for AAAA; one of the two is enough."""
        found: list[str] = []
        life_s = LOOK_AGAIN_S
        failure: LookupFailed | None = None
        for kind in ("A", "AAAA"):
            try:
                answer = await self._ask(host, kind)
            except LookupFailed as err:
                failure = failure or err
            else:
                found += [record.address for record in answer]
                life_s = min(life_s, _life_s(answer))
        if not found:
            raise failure or LookupFailed(f"{host} has no addresses")
        return found, life_s

    async def services(self, name: str) -> tuple[list[Service], float]:
        """Ask for SRV."""
        answer = await self._ask(name, "SRV")
        records = [Service(str(record.target).rstrip("."), record.port) for record in answer]
        # A single record with an empty target says that the service is decidedly not offered.
        return [record for record in records if record.host][:MAX_RECORDS], _life_s(answer)

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer:
        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver()  # reads the system's configuration
            return await self._resolver.resolve(name, kind, search=True, lifetime=LOOKUP_TIMEOUT_S)
        except (dns.exception.DNSException, OSError) as err:
            raise LookupFailed(
                f"{kind} of {name}: {str(err).splitlines()[0] if str(err) else repr(err)}"
            ) from err


def _life_s(answer: dns.resolver.Answer) -> float:
    return float(answer.rrset.ttl) if answer.rrset is not None else LOOK_AGAIN_S


async def run(
    names: Sequence[str],
    add_addresses: AddAddresses,
    *,
    lookup: Lookup | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Look up all names, each in its own rhythm, until cancelled."""
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(_follow, name, add_addresses, lookup or DnsLookup())
        task_status.started()


async def _follow(name: str, add_addresses: AddAddresses, lookup: Lookup) -> None:
    attempts = Attempts(WAY, name)
    while True:
        try:
            found, life_s = await (_by_service if name.startswith("_") else _by_host)(name, lookup)
        except LookupFailed as err:
            pause_s = attempts.failed(str(err))
        else:
            add_addresses(found, WAY)
            pause_s = attempts.succeeded(life_s)
        await trio.sleep(pause_s)


async def _by_host(name: str, lookup: Lookup) -> tuple[list[str], float]:
    host, port = parse_address(name, allow_port_zero=False)
    found, life_s = await lookup.addresses(host)
    return [str(Address(ip, port)) for ip in found], life_s


async def _by_service(name: str, lookup: Lookup) -> tuple[list[str], float]:
    services, life_s = await lookup.services(name)
    found: list[str] = []
    failure: LookupFailed | None = None
    for host, port in services:
        try:
            ips, host_life_s = await lookup.addresses(host)
        except LookupFailed as err:
            failure = err  # one dead host must not hide the others
        else:
            found += [str(Address(ip, port)) for ip in ips]
            life_s = min(life_s, host_life_s)
    if not found:
        raise failure or LookupFailed(f"SRV of {name} lists nothing")
    return list(dict.fromkeys(found)), life_s
