"""Checks of single values that types and ranges cannot say: names, addresses, paths.

Each takes a value of the right type and returns the one to keep, or raises ValueError with a sentence that
tells what to write instead.
"""

from __future__ import annotations

import re

from meshd.config_address import parse_address

#: Node, cluster and zone names travel in every frame and in zeroconf's instance names (63 bytes at most).
MAX_NAME_BYTES = 63

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def check_name(value: str) -> str:
    """Return a node, cluster or zone name as it is; raises ValueError when it is not one."""
    if len(value) > MAX_NAME_BYTES or not _NAME.match(value):
        raise ValueError(
            f"must be 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes and underscores, "
            f"with a letter or digit at both ends, not {value!r}"
        )
    return value


def check_bind(value: str) -> str:
    """Return a listening address in its one form; port 0 is allowed."""
    return str(parse_address(value))


def _dialled(value: str) -> str:
    address = parse_address(value, allow_port_zero=False)
    if address.is_wildcard:
        raise ValueError(f"{value!r} means every interface and cannot be dialled: name one address")
    return str(address)


def check_dialled_list(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the addresses that can be dialled, each once, in the order given."""
    return tuple(dict.fromkeys(_dialled(value) for value in values))


def check_advertise(value: str) -> str:
    """Return an address to tell peers: one that they can dial, or port 0 for the bound one."""
    address = parse_address(value)
    if address.is_wildcard:
        raise ValueError(
            f"{value!r} means every interface and cannot be dialled: name the address that peers reach"
        )
    return str(address)


def check_dns_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names to look up, each once: host:port, or a service that begins with an underscore."""
    for value in values:
        if value.startswith("_"):
            continue  # a service name such as _meshd._tcp.example.org: its SRV records carry the port
        parse_address(value, allow_port_zero=False)
    return tuple(dict.fromkeys(value.lower() for value in values))


def check_path_of_url(value: str) -> str:
    """Return the path of an HTTP health check."""
    if not value.startswith("/") or not value.isascii() or any(c <= " " for c in value):
        raise ValueError(f"must begin with / and hold no spaces, for example /health, not {value!r}")
    return value
