"""What a node shows of itself: plain dicts and lists, ready for JSON. Nothing here changes anything.

Times of day are RFC 3339 in UTC, derived from the wall clock at the moment of asking; ages are seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import cbor2

from crdt.hlc import stamp_ms
from crdt.prefixes import Envelope, Rule, unseal
from crdt.types import DOT, HLC, NOTHING, SEQ, VALUE, Entry, Have, dot_of, format_gen
from meshd.protocol.members import ALIVE

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode

FORGETS = "forget:"
"""Keys under it hold a bare number: the gen counter up to which an owner is forgotten."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(wall_ms: float) -> str:
    """A wall-clock time in ms since 1970 as people and programs read it."""
    moment = _EPOCH + timedelta(milliseconds=max(0.0, min(wall_ms, 253_402_300_799_000.0)))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def digest_text(digest: int) -> str:
    """A digest as 16 hexadecimal digits."""
    return f"{digest:016x}"


def status(node: MeshNode, now: float) -> dict[str, Any]:
    """The node as a whole: identity, gen, counts, digest, and what is wrong with it."""
    store = node.map
    states: dict[str, int] = {ALIVE: 1}
    for member in node.roster:
        states[member.state] = states.get(member.state, 0) + 1
    return {
        "node": node.settings.node,
        "cluster": node.settings.cluster,
        "zone": node.settings.zone,
        "version": node.settings.version,
        "address": node.address,
        "gen": format_gen(store.own.gen),
        "boot_gen": format_gen(node.ownership.boot_gen),
        "uptime_s": round(now - node.started_at, 3),
        "digest": digest_text(store.digest),
        "members": states,
        "connections": len(node.connections.open),
        "owners": len(store.logs),
        "keys": len(store.view.winners),
        "own_keys": store.own.live_count,
        "tombstones": sum(len(log.tombstones) for log in store.logs.values()),
        "foreign": sum(len(owners) for owners in store.view.foreign.values()),
        "unreadable": len(store.view.unreadable),
        "fences": dict(sorted(store.fences.items())),
        "halted": node.ownership.halted or None,
        "cut_off_s": None if node.cut_off.since is None else round(now - node.cut_off.since, 1),
        "transfers": {
            "sent": node.replicator.sent_transfers,
            "received": node.replicator.received_transfers,
            "entries_sent": node.replicator.sent_entries,
        },
    }


def members(node: MeshNode, now: float, wall_ms: int) -> list[dict[str, Any]]:
    """Every member, this node first, then by name."""
    store = node.map
    own = node.connections.heart.own_row()
    rows = [
        {
            "name": own.name,
            "address": own.address,
            "zone": own.zone,
            "state": ALIVE,
            "self": True,
            "connected": True,
            "gen": format_gen(store.own.gen),
            "rtt_ms": 0.0,
            "since": rfc3339(wall_ms - (now - node.started_at) * 1000),
            "version": own.version,
            "digest": digest_text(store.digest),
            "lag": {},
        }
    ]
    for member in sorted(node.roster, key=lambda m: m.name):
        session = node.connections.open.get(member.name)
        log = store.logs.get(member.name)
        rows.append(
            {
                "name": member.name,
                "address": member.address,
                "zone": member.row.zone,
                "state": member.state,
                "self": False,
                "connected": session is not None,
                "gen": None if log is None else format_gen(log.gen),
                "rtt_ms": None if member.rtt_s is None else round(member.rtt_s * 1000, 3),
                "since": rfc3339(wall_ms - (now - member.since) * 1000),
                "version": member.row.version,
                "digest": None if session is None or session.digest is None else digest_text(session.digest),
                "lag": None if session is None else _lag(node, session.reported),
            }
        )
    return rows


def _lag(node: MeshNode, reported: dict[str, Have]) -> dict[str, int]:
    """Owner -> how many writes of it the peer lacks by its last word; only where it lacks any."""
    behind = {}
    for owner, log in node.map.logs.items():
        theirs = reported.get(owner, NOTHING)
        if theirs.gen < log.gen:
            behind[owner] = log.max
        elif theirs.gen == log.gen and theirs.max < log.max:
            behind[owner] = log.max - theirs.max
    return {owner: lag for owner, lag in sorted(behind.items()) if lag}


def peers(node: MeshNode) -> dict[str, list[str]]:
    """Node -> nodes to which it holds connections, as far as this node was told; this node included."""
    views = {node.settings.node: sorted(node.connections.open)}
    for name, session in sorted(node.connections.open.items()):
        if session.peers_known:
            views[name] = sorted(session.peers)
    return views


def vector(node: MeshNode) -> dict[str, dict[str, Any]]:
    """Owner -> what this node holds of its log."""
    rows = {}
    for owner, have in sorted(node.map.vector().items()):
        log = node.map.logs.get(owner)
        rows[owner] = {
            "gen": None if log is None else format_gen(have.gen),
            "max": have.max,
            "floor": have.floor,
            "hash": digest_text(have.hash),
            "known": format_gen(have.known),
            "fence": have.fence or None,
            "silence_s": round(node.forgetting.silence(owner), 1),
        }
    return rows


def entries(
    node: MeshNode,
    wall_ms: int,
    prefix: str = "",
    tombstones: bool = False,
    limit: int = 1000,
    after: str = "",
) -> list[dict[str, Any]]:
    """What `places` finds, each as `entry` shows it."""
    return [entry(node, wall_ms, key, owner) for key, owner in places(node, prefix, tombstones, limit, after)]


def places(node: MeshNode, prefix: str, tombstones: bool, limit: int, after: str) -> list[tuple[str, str]]:
    """(key, owner) of store entries: the visible ones, and with `tombstones` also everything that is not.

    At most `limit` of them in order, with keys greater than `after`.
    """
    store = node.map
    if tombstones:
        pairs = [
            (key, owner)
            for owner, log in store.logs.items()
            for key in log.entries
            if key.startswith(prefix) and key > after
        ]
    else:
        pairs = [
            (key, found.owner)
            for key, found in store.view.winners.items()
            if key.startswith(prefix) and key > after
        ]
    return nsmallest(limit, pairs)


def key_entries(node: MeshNode, wall_ms: int, key: str) -> list[dict[str, Any]]:
    """Everything held under one key, over all logs; the entry that counts comes first."""
    found = [entry(node, wall_ms, key, owner) for owner in _holders(node, key)]
    return sorted(found, key=lambda row: (not row["visible"], row["owner"]))


def _holders(node: MeshNode, key: str) -> Iterator[str]:
    for owner, log in node.map.logs.items():
        if key in log.entries:
            yield owner


def entry(node: MeshNode, wall_ms: int, key: str, owner: str) -> dict[str, Any]:
    """One entry of one log. Raises KeyError if the log does not hold the key."""
    store = node.map
    log = store.logs[owner]
    item: Entry = log.entries[key]
    winner = store.view.winners.get(key)
    visible = winner is not None and winner.owner == owner
    written_ms = stamp_ms(item[HLC])
    dot = dot_of(item, log.gen)
    stamp = _stamp(node, key, item[VALUE])
    return {
        "key": key,
        "owner": owner,
        "gen": format_gen(log.gen),
        "seq": item[SEQ],
        "dot": {"gen": format_gen((dot[0], dot[1])), "seq": dot[2]},
        "republished": item[DOT] is not None,
        "hlc": rfc3339(written_ms),
        "age_s": round(max(0.0, (wall_ms - written_ms) / 1000), 3),
        "tombstone": item[VALUE] is None or (stamp is not None and stamp.payload is None),
        "visible": visible,
        "foreign": owner in store.view.foreign.get(key, ()),
        "readable": not visible or key not in store.view.unreadable,
        "size_bytes": len(item[VALUE] or b""),
        "version": None if stamp is None else stamp.version,
        "writer": owner if stamp is None else stamp.writer,
        "value": _shown(node, key, item[VALUE]),
    }


def _stamp(node: MeshNode, key: str, value: bytes | None) -> Envelope | None:
    """The stamp of an entry that several nodes may write; None for other entries and unreadable ones."""
    prefix = node.map.prefixes.of(key)
    if value is None or prefix is None or prefix.rule is not Rule.MULTI_WRITER:
        return None
    return unseal(value)


def _shown(node: MeshNode, key: str, value: bytes | None) -> Any:
    if value is None:
        return None
    prefix = node.map.prefixes.of(key)
    if prefix is not None and prefix.rule is Rule.MULTI_WRITER:
        envelope = unseal(value)
        if envelope is None:
            return {"unreadable": value.hex()}
        value = envelope.payload
        if value is None:
            return None
        if key.startswith(FORGETS) and value.isdigit():
            return int(value)
    try:
        return _plain(cbor2.loads(value))
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, MemoryError):
        return {"unreadable": value.hex()}


def _plain(value: Any, depth: int = 0) -> Any:
    """A decoded value with only what JSON knows: bytes as hexadecimal, other keys as text."""
    if depth > 32:
        return "..."
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.hex()
        case dict():
            return {str(key): _plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
    return str(value)
