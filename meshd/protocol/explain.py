"""Why a key shows what it shows: every entry of it, what became of each, how it came here, and who has it.

Pure reading of the present: which way an entry came is told from the links as they are now, and a peer has
acknowledged an entry when its own word (its vector) covers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crdt.prefixes import Rule
from crdt.types import NOTHING, SEQ
from meshd.protocol.reads import key_entries

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode
    from meshd.protocol.session import Session


def explain_key(node: MeshNode, wall_ms: int, key: str) -> dict[str, Any]:
    """Everything that can be told of one key; `entries` is empty if no log holds it."""
    prefix = node.map.prefixes.of(key)
    rows = key_entries(node, wall_ms, key)
    winner = next((row for row in rows if row["visible"]), None)
    for row in rows:
        row["verdict"] = _verdict(row, winner, None if prefix is None else prefix.rule)
        row["came_by"] = _came_by(node, row["owner"])
        row["acknowledged"] = {
            name: _has(node, session, row["owner"], key)
            for name, session in sorted(node.connections.open.items())
        }
    return {
        "key": key,
        "node": node.settings.node,
        "rule": None if prefix is None else prefix.rule.value,
        "visible": winner is not None,
        "owner": None if winner is None else winner["owner"],
        "removed_here": node.store.own_deleted_in_this_life(key),
        "entries": rows,
    }


def _verdict(row: dict[str, Any], winner: dict[str, Any] | None, rule: Rule | None) -> str:
    if row["visible"]:
        return "counts" if row["readable"] else "counts, and cannot be read by this version"
    if rule is None:
        return "does not count: this version knows no such prefix"
    if row["foreign"]:
        return f"does not count: the key is not {row['owner']}'s to write"
    if rule is Rule.SINGLE_WRITER:
        return "a removal by its owner" if row["tombstone"] else "does not count"
    if winner is None:
        return "a removal that counts" if row["tombstone"] else "beaten by a removal"
    if (row["version"], row["writer"]) == (winner["version"], winner["writer"]):
        return f"the same write as that in the log of {winner['owner']}"
    return f"beaten by version {winner['version']} of {winner['writer']}"


def _came_by(node: MeshNode, owner: str) -> str:
    if owner == node.settings.node:
        return "written here"
    if owner in node.connections.open:
        return f"from {owner}, which is connected"
    log = node.map.logs[owner]
    able = sorted(
        name
        for name, session in node.connections.open.items()
        if session.reported.get(owner, NOTHING)[:2] >= (log.gen, log.max)
    )
    if able:
        return f"relayed, as {owner} is not connected; {', '.join(able)} can have passed it on"
    return f"held since {owner} was last met; nobody connected has told to have it"


def _has(node: MeshNode, session: Session, owner: str, key: str) -> bool:
    """Whether a peer has told that it holds an owner's log as far as this entry."""
    log = node.map.logs[owner]
    theirs = session.reported.get(owner, NOTHING)
    return (
        session.name == owner
        or theirs.gen > log.gen
        or (theirs.gen == log.gen and theirs.max >= log.entries[key][SEQ])
    )
