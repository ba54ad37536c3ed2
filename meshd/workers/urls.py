"""Worker URLs: one spelling for each address, made once, at the edge (REG-8).

Owns what counts as the same URL. Rules it keeps: scheme and host in lower case, a scheme's default port
dropped, no trailing slash, IPv6 in its shortest form and in brackets, a data-parallel rank
(`http://host:port@3`) kept at the end. Anything that could hide a secret or mean two things (user names,
queries, fragments, `host:port` without a scheme, numbers that only resemble an IPv4 address) is refused with
a hint. Also tells which URLs other nodes cannot reach (SYN-15).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from meshd.errors import BadRequest

SCHEMES: Final = ("http", "https", "grpc", "grpcs", "ipc")
MAX_URL_CHARS: Final = 2048
"""Longer than any address in use, and short enough to be shown and logged."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_RANK: Final = re.compile(r"\A(?P<base>[^@]+)@(?P<rank>\d{1,9})\Z")
_HOST: Final = re.compile(r"\A(?!-)[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?\Z")
_BARE: Final = re.compile(r"\A[A-Za-z0-9._\[\]:-]+(/.*)?\Z")
_NUMERIC: Final = re.compile(r"\A[0-9.]+\Z|\A0x[0-9a-f]+\Z")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f-\uffff\U00010000-\U0010ffff\"<>\\^`{|}]")


def normalise_url(url: str, field: str = "url") -> str:
    """Return the one spelling of a worker's URL. Raises BadRequest naming `field`, with a hint."""

    def refuse(why: str) -> BadRequest:
        return BadRequest(f"{field} {why}", field=field)

    if not url or len(url) > MAX_URL_CHARS:
        raise refuse(f"must have 1 to {MAX_URL_CHARS} characters")
    if _UNSAFE.search(url):
        raise refuse(
            "must be plain ASCII without spaces; write other characters percent-encoded, or as punycode"
        )
    if "://" not in url:
        hint = f"; did you mean http://{url} ?" if _BARE.match(url) else ""
        raise refuse(f"must start with a scheme, one of {', '.join(s + '://' for s in SCHEMES)}{hint}")
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise refuse(f"has the scheme {scheme}; it must be one of {', '.join(SCHEMES)}")
    if scheme == "ipc":
        path = url.partition("://")[2].rstrip("/")
        if not path:
            raise refuse("must name a socket, as in ipc:///run/worker.sock")
        return f"ipc://{path}"
    ranked = _RANK.match(url)
    base, suffix = (ranked["base"], f"@{int(ranked['rank'])}") if ranked else (url, "")
    try:
        parts = urlsplit(base)
        port = parts.port
    except ValueError:
        raise refuse("is not a valid address; ports go up to 65535 and IPv6 stands in brackets") from None
    if parts.username is not None or parts.password is not None:
        raise refuse("must not hold a user name or password; give api_key instead")
    if parts.query or parts.fragment or base[-1] in "?#":
        raise refuse("must not hold a query or fragment")
    if port == 0:
        raise refuse("must not have port 0")
    host = _host(parts)
    if host is None:
        raise refuse(
            f"has the host {parts.netloc!r}; give a name, an IPv4 address, or an IPv6 address in brackets"
        )
    authority = host if port is None or port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"
    return f"{scheme}://{authority}{parts.path.rstrip('/')}{suffix}"


def is_reachable_from_others(url: str) -> bool:
    """Whether another machine could reach this (normalised) URL: not loopback, not a socket file (SYN-15)."""
    if url.startswith("ipc:"):
        return False
    ranked = _RANK.match(url)
    host = urlsplit(ranked["base"] if ranked else url).hostname or ""
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return True
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_loopback or address.is_unspecified)


def scheme_of(url: str) -> str:
    """Return the scheme of a normalised URL."""
    return url.partition("://")[0]


def _host(parts: SplitResult) -> str | None:
    host = parts.hostname
    if not host:
        return None
    if parts.netloc.startswith("["):
        address, percent, zone = host.partition("%")
        try:
            shortest = ipaddress.IPv6Address(address).compressed
        except ValueError:
            return None
        return f"[{shortest}{percent}{zone}]"
    if _NUMERIC.match(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None  # 127.1 or 2130706433: some resolvers take them for addresses, others for names
    return host if _HOST.match(host) else None
