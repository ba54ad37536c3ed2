"""Addresses of this program's own sockets: `host:port`, with IPv6 in brackets.

This file owns how such an address is read and written. It resolves nothing: whether a host is loopback is
told from its spelling (`localhost`, 127.0.0.0/8, ::1), since the answer must not change with the name
server's mood.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

#: A port fits 16 bits; 0 asks the system to pick one.
MAX_PORT = 65_535


class Address(NamedTuple):
    """A host (a name, or an IP address without brackets) and a port; port 0 means "pick one"."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Whether the address means every interface, so that nobody can dial it."""
        ip = _ip(self.host)
        return ip is not None and ip.is_unspecified


def parse_address(text: str, *, allow_port_zero: bool = True) -> Address:
    """Read `host:port` or `[v6]:port`; the host comes back in lower case, an IP address in its shortest form.

    Raises ValueError with a sentence that says what to write instead.
    """
    text = text.strip()
    if "://" in text:
        raise ValueError(f"write host:port without a scheme, not {text!r}")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"write an IPv6 address as [address]:port, not {text!r}")
        port_text = rest[1:]
        if not isinstance(_ip(host), ipaddress.IPv6Address):
            raise ValueError(f"{host!r} in brackets is not an IPv6 address")
    else:
        host, colon, port_text = text.rpartition(":")
        if not colon:
            raise ValueError(f"a port is missing: write host:port, for example {text or '127.0.0.1'}:7390")
        if ":" in host:
            raise ValueError(f"write an IPv6 address in brackets, [address]:port, not {text!r}")
    return Address(_host(host, text), _port(port_text, text, allow_port_zero))


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine's loopback, from its spelling alone."""
    host = host.strip("[]").lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    ip = _ip(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip is not None and ip.is_loopback


def _host(host: str, text: str) -> str:
    ip = _ip(host)
    if ip is not None:
        return str(ip)
    host = host.lower()
    if not host:
        raise ValueError(
            f"a host is missing in {text!r}: write 127.0.0.1:port, or 0.0.0.0:port for every interface"
        )
    labels = host.rstrip(".").split(".")
    if len(host) > 253 or not all(_is_label(label) for label in labels):
        raise ValueError(f"{host!r} is neither a host name nor an IP address")
    if all(label.isdigit() for label in labels):
        raise ValueError(f"{host!r} is not an IP address")
    return host


def _is_label(label: str) -> bool:
    # Underscores are no part of host names proper, and common in container networks.
    return 0 < len(label) <= 63 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()


def _port(port_text: str, text: str, allow_port_zero: bool) -> int:
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5:
        raise ValueError(f"the port in {text!r} must be a number from 0 to {MAX_PORT}")
    port = int(port_text)
    if port > MAX_PORT:
        raise ValueError(f"the port in {text!r} must be a number from 0 to {MAX_PORT}")
    if port == 0 and not allow_port_zero:
        raise ValueError(
            f"port 0 in {text!r} cannot be dialled: name the port that the other side listens on"
        )
    return port


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
