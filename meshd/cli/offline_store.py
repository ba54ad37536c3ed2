"""What the files of a data directory hold, told in the API's words.

Rules: it reads and never repairs, locks or binds anything; which entry of a key counts is decided by
the map's own rules, as the daemon would; whatever is damaged is named. Slow to import, but no trio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import cbor2

from crdt.prefixes import Prefix, PrefixTable, Rule
from crdt.types import VALUE, Entry, format_gen
from crdt.view import View
from meshd.cli.exits import CliError, Exit
from meshd.errors import MeshdError
from meshd.storage import read_offline
from meshd.workers.record import classify

WORKER_PREFIX = "worker:"
CONFIG_PREFIX = "config:"


class CannotRead(CliError):
    """The data directory is not one, or its database cannot be read."""

    exit_code: ClassVar[int] = Exit.NO


class OfflineStore:
    """What the files of a data directory hold, told in the API's words.

    `now` is Unix time in seconds, for ages. Which entry of a key counts is decided by the map's own
    rules, as the daemon would. Raises `CannotRead`.
    """

    def __init__(self, directory: Path, now: float) -> None:
        if not directory.is_dir():
            raise CannotRead(
                f"there is no directory {directory}", hint="--data-dir names a daemon's data directory"
            )
        try:
            self._state = read_offline(directory)
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
    return PrefixTable(
        Prefix(WORKER_PREFIX, Rule.SINGLE_WRITER, classify), Prefix(CONFIG_PREFIX, Rule.MULTI_WRITER)
    )


def _decoded(value: bytes) -> Any:
    """The value as plain data; what is not CBOR as hex."""
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
