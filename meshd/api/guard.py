"""Who may call what: bearer tokens, and a stop to web pages that reach for the API from a browser (SEC-3).

Rules: the unix socket needs no token, its file permissions guard it. On TCP, once any token is configured,
every operation needs one except the two probes (`healthz`, `readyz`). A write token also reads; a read token
never writes. Tokens are compared in constant time and never appear in an answer or a log line.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import stat
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from meshd.errors import ConfigError, Forbidden, Unauthorized

if TYPE_CHECKING:
    from starlette.types import Scope

log = structlog.get_logger("meshd.api")

_MIN_TOKEN_CHARS = 8


class Access(Enum):
    """What an operation asks of its caller."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"


def load_tokens(field: str, path: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Read tokens from a file, one a line (several, so that one can be exchanged for the next without a gap).

    `field` names the setting in errors. Raises ConfigError when the file cannot be read, holds no token, or
    holds one that is too short or cannot be sent in a header. A file that others may read is used, with a
    warning.
    """
    if not path:
        return ()
    file = Path(path)
    try:
        text = file.read_text(encoding="ascii")
        mode = file.stat().st_mode
    except UnicodeDecodeError:
        raise ConfigError(field, f"{file} holds characters that a token cannot have; use ASCII") from None
    except OSError as error:
        raise ConfigError(field, f"cannot read {file}: {os.strerror(error.errno or 0)}") from None
    tokens = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not tokens:
        raise ConfigError(field, f"{file} holds no token; write one into it, on a line of its own")
    for token in tokens:
        if len(token) < _MIN_TOKEN_CHARS or not token.isprintable() or " " in token:
            raise ConfigError(
                field,
                f"a token in {file} is too short or has blanks; use at least {_MIN_TOKEN_CHARS} characters",
            )
    if stat.S_IMODE(mode) & 0o077:
        log.warning("token_file_readable_by_others", setting=field, file=os.fspath(file))
    return tokens


class Guard:
    """Decides by the headers alone, before a body is read."""

    def __init__(self, read_tokens: Iterable[str] = (), write_tokens: Iterable[str] = ()) -> None:
        self._read = tuple(_digest(token) for token in read_tokens)
        self._write = tuple(_digest(token) for token in write_tokens)

    @property
    def configured(self) -> bool:
        """Whether any token is: then TCP addresses that other hosts can reach are allowed."""
        return bool(self._read or self._write)

    def check(self, scope: Scope, access: Access) -> None:
        """Let the request pass, or raise Unauthorized (no token, or an unknown one) or Forbidden."""
        if scope["server"] is None:
            return  # the unix socket
        headers = dict(scope["headers"])
        token = _bearer(headers.get(b"authorization"))
        if self.configured:
            if access is Access.OPEN:
                return
            self._check_token(token, access)
        elif access is Access.WRITE:
            _check_origin(headers)

    def _check_token(self, token: str | None, access: Access) -> None:
        if token is None:
            raise Unauthorized("this API needs a token: send the header `Authorization: Bearer TOKEN`")
        digest = _digest(token)
        may_write = _matches(digest, self._write)
        may_read = _matches(digest, self._read)
        if not may_write and not may_read:
            raise Unauthorized(
                "this token is not known here; see api.read_token_file and api.write_token_file"
            )
        if access is Access.WRITE and not may_write:
            raise Forbidden("this token may only read; use one of api.write_token_file")


def _matches(digest: bytes, known: Iterable[bytes]) -> bool:
    """Compare with all of them, so that the time tells nothing about which one matched."""
    found = False
    for one in known:
        found |= hmac.compare_digest(digest, one)
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _bearer(header: bytes | None) -> str | None:
    if header is None:
        return None
    scheme, _, token = header.decode("latin-1").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _check_origin(headers: dict[bytes, bytes]) -> None:
    """Refuse a write that a web page of another site makes through somebody's browser.

    Without tokens nothing else would stop it: loopback is as near to the browser as to meshctl. Programs send
    no `Origin`. Pages served by this API have an IP address or `localhost` for a host; any other name could
    be rebound to this address by its owner.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return
    host = headers.get(b"host", b"").decode("latin-1")
    if urlsplit(origin.decode("latin-1")).netloc == host and _is_own_name(host):
        return
    raise Forbidden("web pages of other sites may not change anything here", code="CROSS_ORIGIN")


def _is_own_name(netloc: str) -> bool:
    try:
        name = urlsplit(f"//{netloc}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
