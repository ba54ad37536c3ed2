"""What the files of a data directory hold, told in the API's words.

Rules: it reads and never repairs, locks or binds anything; which entry of a key counts is decided by
the map's own rules, as the daemon would; whatever is damaged is named. Slow to import, but no trio.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from crdt.lww_map import LwwMap
from crdt.types import format_gen
from meshd.cli.exits import CliError, Exit
from meshd.errors import MeshdError
from meshd.prefixes import prefix_table
from meshd.protocol import reads
from meshd.storage import StoredState, read_offline, read_snapshot

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode


class CannotRead(CliError):
    """The data directory is not one, or its database cannot be read."""

    exit_code: ClassVar[int] = Exit.NO


class _Held:
    """What the node's read models need of a node: its map."""

    def __init__(self, held: LwwMap) -> None:
        self.map = held


class OfflineStore:
    """The store in a data directory or a snapshot. `now` is Unix time in seconds, for ages.

    Raises `CannotRead`.
    """

    def __init__(self, directory: Path, now: float) -> None:
        if not directory.exists():
            raise CannotRead(
                f"there is no directory {directory}", hint="--data-dir names a daemon's data directory"
            )
        try:
            self._state = read_offline(directory) if directory.is_dir() else _read_snapshot(directory)
        except MeshdError as problem:
            raise CannotRead(problem.message) from problem
        self._directory = directory
        self._wall_ms = int(now * 1000)
        self._name = _text_of(self._state.meta.get("node"))
        self._map = LwwMap(self._name or "", prefix_table(), logs=self._state.logs)
        # The read models of a running node look at nothing but its map.
        self._node = cast("MeshNode", _Held(self._map))
        self.problems: list[str] = list(self._state.problems)

    def entries(self, prefix: str | None, tombstones: bool, limit: int | None) -> list[dict[str, Any]]:
        """The entries that count, in key order; with `tombstones` also those that do not."""
        most = sys.maxsize if limit is None else limit
        return reads.entries(self._node, self._wall_ms, prefix or "", tombstones, most)

    def entry(self, key: str, tombstones: bool) -> list[dict[str, Any]]:
        """The entry that counts for one key; with `tombstones` then those that do not."""
        found = reads.key_entries(self._node, self._wall_ms, key)
        return [entry for entry in found if tombstones or entry["visible"]]

    def info(self) -> dict[str, Any]:
        """Identity and counts, as far as files can tell."""
        logs = sorted(self._state.logs.items())
        return {
            "node": self._name,
            "cluster": _text_of(self._state.meta.get("cluster")),
            "running": False,
            "data_dir": str(self._directory),
            "digest": reads.digest_text(self._map.digest),
            "keys": len(self._map.view.winners),
            "owners": {
                owner: {
                    "gen": format_gen(log.gen),
                    "max": log.max,
                    "floor": log.floor,
                    "hash": reads.digest_text(log.hash),
                    "live": log.live_count,
                    "tombstones": len(log.tombstones),
                }
                for owner, log in logs
            },
            "problems": self.problems,
            "damaged_owners": list(self._state.damaged_owners),
        }


def _read_snapshot(file: Path) -> StoredState:
    try:
        with file.open("rb") as source:
            return read_snapshot(source).state
    except OSError as problem:
        raise CannotRead(f"cannot read {file}: {problem.strerror or problem}") from problem


def _text_of(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")
