"""`meshctl diff A B`: the keys on which two stores differ, and which of the two entries wins.

A side is the API of a node, the data directory of one (asked if it runs, else read), or a snapshot. Rule:
which one wins is said where entries and vectors tell: the side that is further in the owner's log, or the
greater version; two stores that differ otherwise will learn more when they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from meshd.cli import address, human
from meshd.cli.client import Api
from meshd.cli.cmd_kv import FromApi, summary
from meshd.cli.exits import Exit, Unreachable, UsageProblem
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session
from meshd.cli.table import Column, Row, field, render

MOST_SHOWN = 1000
"""Lines of the table; JSON holds all."""


Position = tuple[tuple[int, int], int]
"""Gen (counter and nonce) and seq: a place in one owner's log."""


class Held(NamedTuple):
    """What one side holds: its entries by key, tombstones and beaten ones too, and how far each log goes."""

    entries: dict[str, list[Row]]
    reach: dict[str, Position]


@click.command(cls=MeshCommand)
@click.argument("left", metavar="A")
@click.argument("right", metavar="B")
@click.option("--prefix", help="Only keys that begin so.")
@click.pass_context
def diff(ctx: click.Context, left: str, right: str, prefix: str | None) -> None:
    """Compare the stores of two nodes: the keys on which they differ, and the entry that wins.

    A and B are APIs (http://HOST:PORT, unix:PATH), data directories, or snapshots. Exit code 0 if they
    show the same, 1 if they differ.
    """
    session = ctx.ensure_object(Session)
    found = differences(_held(session, left, prefix), _held(session, right, prefix))
    data = {"a": left, "b": right, "same": not found, "differences": found}
    session.emit(data, lambda: _text(found, left, right))
    if found:
        ctx.exit(Exit.NO)


def _held(session: Session, named: str, prefix: str | None) -> Held:
    path = Path(named)
    if path.is_dir():
        api = session.api_of(address.of_data_dir(path, source=named))
        try:
            api.connect()
        except Unreachable:
            return _offline(session, path, prefix)
        return _online(api, prefix)
    if path.is_file():
        return _offline(session, path, prefix)
    if not address.looks_like_address(named):
        raise UsageProblem(
            f"{named!r} is neither an address, nor a data directory, nor a snapshot",
            hint="of a member, give the address of its API: http://HOST:7391",
        )
    return _online(session.api_of([address.parse(named)]), prefix)


def _online(api: Api, prefix: str | None) -> Held:
    return held(FromApi(api).entries(prefix, True, None), api.get_object("/mesh/vector"))


def _offline(session: Session, path: Path, prefix: str | None) -> Held:
    from meshd.cli.offline_store import OfflineStore  # here, since it is slow to import

    store = OfflineStore(path, session.clock.wall())
    for problem in store.problems:
        session.say(f"{path}: {problem}")
    return held(store.entries(prefix, True, None), store.info()["owners"])


def held(entries: Iterable[Row], vector: Mapping[str, Row]) -> Held:
    """Put entries and vector, as the API tells them, into the form in which they are compared."""
    by_key: dict[str, list[Row]] = {}
    for row in entries:
        by_key.setdefault(str(row.get("key")), []).append(row)
    reach = {owner: (_gen(row["gen"]), int(row["max"])) for owner, row in vector.items() if row.get("gen")}
    return Held(by_key, reach)


def differences(left: Held, right: Held) -> list[dict[str, Any]]:
    """The keys whose visible entries differ, in order; each with both sides and the one that wins."""
    found = []
    for key in sorted(left.entries.keys() | right.entries.keys()):
        shown = [next((row for row in side.entries.get(key, ()) if row.get("visible")), None)
                 for side in (left, right)]  # fmt: skip
        if _content(shown[0]) != _content(shown[1]):
            wins, why = winner(key, left, right)
            found.append({"key": key, "a": shown[0], "b": shown[1], "wins": wins, "why": why})
    return found


def _content(row: Row | None) -> object:
    return None if row is None else (row.get("owner"), row.get("value"))


def winner(key: str, left: Held, right: Held) -> tuple[str | None, str]:
    """Which side shows what counts once both have met: "a", "b" or None, and why."""
    rows = [side.entries.get(key, []) for side in (left, right)]
    versions = [max(((row["version"], row["writer"]) for row in side if row.get("version")), default=(0, ""))
                for side in rows]  # fmt: skip
    if versions[0] != versions[1]:
        later = max(versions)
        return "ab"[versions.index(later)], f"version {later[0]} of {later[1]} is the greater one"
    owners = sorted({str(row["owner"]) for side in rows for row in side if not row.get("foreign")})
    if len(owners) != 1:
        return None, f"entries of {', '.join(owners)}: what counts is decided when both have all logs"
    (owner,) = owners
    nothing = ((-1, 0), 0)
    reach = [side.reach.get(owner, nothing) for side in (left, right)]
    if reach[0] == reach[1]:
        return None, f"both are at the same place in the log of {owner}: one of them is at fault"
    return "ab"[
        reach.index(max(reach))
    ], f"it is further in the log of {owner}, the only one to write this key"


def _gen(text: str) -> tuple[int, int]:
    counter, _, nonce = text.partition(".")
    return int(counter), int(nonce or "0", 16)


def _side(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        entry = row.get(name)
        if entry is None:
            return human.ABSENT
        return f"{entry.get('owner')}#{entry.get('seq')} {summary(entry)}"

    return cell


def _text(found: list[dict[str, Any]], left: str, right: str) -> str:
    if not found:
        return f"{left} and {right} show the same"
    columns = (
        Column("KEY", field("key")),
        Column("WINS", lambda row: {"a": "A", "b": "B"}.get(str(row.get("wins")))),
        Column("A", _side("a")),
        Column("B", _side("b")),
        Column("WHY", field("why")),
    )
    table = render(columns, found[:MOST_SHOWN])
    more = f"\n... and {len(found) - MOST_SHOWN} more: -o json lists all" if len(found) > MOST_SHOWN else ""
    return f"{table}{more}\nA {left} and B {right} differ on {human.count(len(found), 'key')}"
