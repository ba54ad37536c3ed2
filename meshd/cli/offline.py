"""Reading a data directory whose daemon is not running.

Rules: it reads and never repairs, locks or binds anything; it says on stderr that it reads files
and not a daemon; whatever is damaged is named. Storage and the record codec are imported only
when files are read, so that talking to a daemon stays fast. No trio on this path either.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from meshd.cli.client import Api
from meshd.cli.exits import CliError, Exit, Unreachable
from meshd.cli.session import Session

if TYPE_CHECKING:
    from crdt.prefixes import PrefixTable
    from crdt.types import Entry
    from meshd.storage import StoredState

WORKER_PREFIX = "worker:"
CONFIG_PREFIX = "config:"
VALUE = 4
"""Place of the value in an entry; None there is a tombstone."""


class CannotRead(CliError):
    """The data directory is not one, or its database cannot be read."""

    exit_code: ClassVar[int] = Exit.NO


def online_or(
    session: Session, online: Callable[[Api], None], offline: Callable[[OfflineStore], None]
) -> None:
    """Ask the daemon; where `--data-dir` names the directory of one that does not run, read its files."""
    api = session.api()
    if session.addrs or session.data_dir is None:
        online(api)
        return
    try:
        api.connect()
    except Unreachable:
        store = OfflineStore(session.data_dir, session.clock.wall())
        session.say(f"no daemon runs on {session.data_dir}: reading its files as it left them")
        for problem in store.problems:
            session.say(problem)
        offline(store)
    else:
        online(api)


class OfflineStore:
    """What the files of a data directory hold, told in the API's words.

    `now` is Unix time in seconds, for ages. Which entry of a key counts is decided by the map's own
    rules, as the daemon would. Raises `CannotRead`.
    """

    def __init__(self, directory: Path, now: float) -> None:
        from crdt.view import View
        from meshd.errors import MeshdError
        from meshd.storage import read_offline

        if not directory.is_dir():
            raise CannotRead(
                f"there is no directory {directory}", hint="--data-dir names a daemon's data directory"
            )
        try:
            self._state: StoredState = read_offline(directory)
        except MeshdError as problem:
            raise CannotRead(problem.message) from problem
        self._directory = directory
        self._now = now
        self._view = View(_prefixes(), self._state.logs)
        for owner, log in self._state.logs.items():
            self._view.refresh(owner, log.entries)
        self.problems: list[str] = list(self._state.problems)

    def entries(self, prefix: str | None, tombstones: bool, limit: int | None) -> list[dict[str, Any]]:
        """The entries that count, in key order; with `tombstones` also what owners deleted."""
        found = [
            self._shown(visible.owner, visible.entry, visible.value, readable=visible.readable)
            for key, visible in self._view.winners.items()
            if key.startswith(prefix or "")
        ]
        if tombstones:
            found += [
                self._shown(owner, entry, None)
                for owner, log in self._state.logs.items()
                for key, entry in log.entries.items()
                if entry[VALUE] is None and key.startswith(prefix or "")
            ]
        found.sort(key=lambda entry: (entry["key"], entry["tombstone"], entry["owner"]))
        return found if limit is None else found[:limit]

    def entry(self, key: str, tombstones: bool) -> list[dict[str, Any]]:
        """The entry that counts for one key, then its tombstones."""
        return [entry for entry in self.entries(key, tombstones, None) if entry["key"] == key]

    def info(self) -> dict[str, Any]:
        """Identity and counts, as far as files can tell."""
        from crdt.types import format_gen

        meta = self._state.meta
        return {
            "node": _text_of(meta.get("node")),
            "cluster": _text_of(meta.get("cluster")),
            "running": False,
            "data_dir": str(self._directory),
            "digest": f"{self._view.digest:016x}",
            "keys": len(self._view.winners),
            "owners": {
                owner: {
                    "gen": format_gen(log.gen),
                    "max": log.max,
                    "floor": log.floor,
                    "live": sum(entry[VALUE] is not None for entry in log.entries.values()),
                    "tombstones": sum(entry[VALUE] is None for entry in log.entries.values()),
                }
                for owner, log in sorted(self._state.logs.items())
            },
            "problems": self.problems,
            "damaged_owners": list(self._state.damaged_owners),
        }

    def _shown(
        self, owner: str, entry: Entry, value: bytes | None, *, readable: bool = True
    ) -> dict[str, Any]:
        from crdt.types import format_gen

        key, seq, _dot, hlc, *_ = entry
        shown: dict[str, Any] = {
            "key": key,
            "owner": owner,
            "gen": format_gen(self._state.logs[owner].gen),
            "seq": seq,
            "hlc": hlc,
            "age_s": round(max(0.0, self._now - (hlc >> 16) / 1000), 3),
            "tombstone": value is None,
        }
        if value is not None:
            shown["value"] = _decoded(value)
            if not readable:
                shown["unreadable"] = True
        return shown


def _prefixes() -> PrefixTable:
    """The daemon's prefixes."""
    from crdt.prefixes import Prefix, PrefixTable, Rule
    from meshd.workers.record import classify

    return PrefixTable(
        Prefix(WORKER_PREFIX, Rule.SINGLE_WRITER, classify), Prefix(CONFIG_PREFIX, Rule.MULTI_WRITER)
    )


def _decoded(value: bytes) -> Any:
    """The value as plain data; what is not CBOR as hex."""
    import cbor2

    try:
        return plain(cbor2.loads(value))
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError):
        return value.hex()


def plain(value: Any) -> Any:
    """What JSON can say: bytes as hex, keys as text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _text_of(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
