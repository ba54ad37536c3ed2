"""Where the daemon's API may be: addresses as people write them, and the order of looking.

Rules: what was typed wins over the environment, that over what is found. Nothing is
contacted here; the result is a list of candidates, tried in order by the client. A data
directory's socket belongs to that directory and so comes before its TCP endpoint, whose
port another daemon may hold by now.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from meshd.cli.exits import UsageProblem

API_PORT = 7391
SOCKET_NAME = "meshd.sock"
ENDPOINTS_NAME = "endpoints.json"
SYSTEM_DATA_DIRS = (Path("/var/lib/meshd"),)
"""Where a daemon that the system started keeps its data."""

FORMS = "write http://HOST:PORT, HOST:PORT or unix:/PATH/meshd.sock"


@dataclass(frozen=True, slots=True)
class Address:
    """One place to ask: TCP (`host`, `port`, `tls`) or a unix socket (`path`).

    `source` says in words where it comes from. `implied_by` is set on the TCP endpoint that a
    data directory names: the socket of the same directory. If nothing listens on that socket
    the daemon is gone, and the endpoint is not to be trusted.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    source: str = "--addr"
    implied_by: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse(text: str, *, source: str = "--addr") -> Address:
    """Read one address; raises `UsageProblem` with the accepted forms."""
    word = text.strip()
    if word.startswith("unix:"):
        path = word.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("//") else path
        if not path:
            raise UsageProblem(f"{source} {text!r} names no socket file", hint=FORMS)
        return Address(path=path, source=source)
    if word.startswith(("/", "./", "../")):
        return Address(path=word, source=source)
    scheme, split = "http", word
    if "://" in word:
        scheme, split = word.split("://", 1)
        scheme = scheme.lower()
    if scheme not in ("http", "https"):
        raise UsageProblem(f"{source} {text!r} has a scheme that meshctl does not speak", hint=FORMS)
    try:
        parts = urlsplit(f"//{split}")
        port = parts.port
    except ValueError as problem:
        raise UsageProblem(f"{source} {text!r} is not an address: {problem}", hint=FORMS) from problem
    if not split or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageProblem(f"{source} {text!r} is not the address of a daemon", hint=FORMS)
    return Address(
        host=parts.hostname or "127.0.0.1",
        port=API_PORT if port is None else port,
        tls=scheme == "https",
        source=source,
    )


def looks_like_address(word: str) -> bool:
    """Whether a word that may also be a node's name or a directory is written as an address."""
    return word.startswith("unix:") or "://" in word or word.rpartition(":")[2].isdigit()


def default_data_dir(env: Mapping[str, str]) -> Path:
    """The data directory of a daemon that was started without naming one."""
    if named := env.get("MESHD_NODE__DATA_DIR"):
        return Path(named)
    import platformdirs  # here, since it is needed only where nothing was named

    return Path(platformdirs.user_data_dir("meshd", appauthor=False))


def of_data_dir(directory: Path, *, source: str) -> list[Address]:
    """The candidates that a data directory names: its socket, then its TCP endpoint."""
    found: list[Address] = []
    endpoints = _read_endpoints(directory / ENDPOINTS_NAME)
    socket_path = _socket_path(directory, endpoints.get("socket"))
    has_socket = os.path.exists(socket_path)
    if has_socket:
        found.append(Address(path=socket_path, source=source))
    bound = endpoints.get("api")
    if isinstance(bound, str) and bound:
        parsed = parse(bound, source=source)
        found.append(
            Address(
                host=_reachable(parsed.host),
                port=parsed.port,
                tls=parsed.tls,
                source=source,
                implied_by=socket_path if has_socket else "",
            )
        )
    return found


def candidates(addrs: tuple[str, ...], data_dir: Path | None, env: Mapping[str, str]) -> list[Address]:
    """Every place to look for one daemon, best first.

    `--addr`, else `--data-dir`, else `MESHCTL_ADDR`, else the default data directory and the
    default port. May be empty only for a `--data-dir` whose daemon never ran.
    """
    if addrs:
        return [parse(addr) for addr in addrs]
    if data_dir is not None:
        return of_data_dir(data_dir, source=f"--data-dir {data_dir}")
    if named := [word for word in env.get("MESHCTL_ADDR", "").split(",") if word.strip()]:
        return [parse(word, source="MESHCTL_ADDR") for word in named]
    found: list[Address] = []
    for home in (default_data_dir(env), *SYSTEM_DATA_DIRS):
        found += of_data_dir(home, source=f"the data directory {home}")
    standard = Address(host="127.0.0.1", port=API_PORT, source="the default port")
    if not any(_same_place(standard, one) for one in found):
        found.append(standard)
    return found


def _socket_path(directory: Path, recorded: object) -> str:
    """Where the socket is: as recorded, but a relative path was relative to the daemon, not to us."""
    if isinstance(recorded, str) and os.path.isabs(recorded):
        return recorded
    return str(directory / SOCKET_NAME)


def _read_endpoints(path: Path) -> Mapping[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _reachable(host: str) -> str:
    """What to connect to for a daemon bound to every interface."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _same_place(one: Address, other: Address) -> bool:
    return (one.host, one.port, one.path) == (other.host, other.port, other.path)
