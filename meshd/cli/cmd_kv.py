"""`meshctl kv ls|get`: the replicated store itself, from the daemon or from its files.

Rule: what is shown is what the node holds, the tombstones too when they are asked for. A
data directory whose daemon is not running is read as it was left, and that is said.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import click

from meshd.cli import human
from meshd.cli.client import Api, path_of
from meshd.cli.exits import ApiRefused, CliError, Exit
from meshd.cli.offline import online_or
from meshd.cli.options import MeshGroup
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, fields, render

PAGE = 1000
VALUE_WIDTH = 60


class EntrySource(Protocol):
    """Where entries come from: the API, or the files of a data directory."""

    def entries(self, prefix: str | None, tombstones: bool, limit: int | None) -> list[dict[str, Any]]:
        """Entries in key order, as the API's `/mesh/store` tells them."""

    def entry(self, key: str, tombstones: bool) -> list[dict[str, Any]]:
        """The entries under one key, the one that counts first; empty if there is none."""


class FromApi:
    """Entries from a running daemon, page by page."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def entries(self, prefix: str | None, tombstones: bool, limit: int | None) -> list[dict[str, Any]]:
        """Every page until the limit or the end."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            query = {"prefix": prefix, "tombstones": 1 if tombstones else None, "limit": size, "after": after}
            body = self._api.get_rows("/mesh/store", "entries", query)
            page = body["entries"]
            found += page
            after = body.get("next")
            if after is None:
                break
        return found if limit is None else found[:limit]

    def entry(self, key: str, tombstones: bool) -> list[dict[str, Any]]:
        """Ask for the key alone; the daemon tells its tombstones in any case."""
        try:
            body = self._api.get_rows(path_of("mesh", "store", key), "entries")
        except ApiRefused as problem:
            if problem.code == "KEY_NOT_FOUND":
                return []
            raise
        return [entry for entry in body["entries"] if tombstones or entry.get("visible")]


@click.group(cls=MeshGroup)
def kv() -> None:
    """Look into the replicated store."""


def summary(entry: Row) -> str:
    """A value in one short line: a worker by its URL and status, anything else as JSON."""
    state = state_of(entry)
    if state in ("tombstone", "unreadable"):
        return f"({state})"
    value = entry.get("value")
    if isinstance(value, dict) and isinstance(value.get("spec"), dict):
        shown = f"{value['spec'].get('url')} {value.get('status')}"
    else:
        shown = human.clip(json.dumps(value, ensure_ascii=False), VALUE_WIDTH)
    return shown if state == "live" else f"({state}) {shown}"


def state_of(entry: Row) -> str:
    """Whether an entry counts: live or unreadable; tombstone, foreign (not its owner's) or beaten if not."""
    if entry.get("tombstone"):
        return "tombstone"
    if entry.get("foreign"):
        return "foreign"
    if entry.get("visible") is False:
        return "beaten"
    return "live" if entry.get("readable", True) else "unreadable"


KV_COLUMNS = (
    Column("KEY", field("key")),
    Column("OWNER", field("owner")),
    Column("GEN", field("gen"), wide=True),
    Column("SEQ", field("seq"), right=True),
    Column("AGE", lambda row: human.age(row.get("age_s")), right=True),
    Column("HLC", field("hlc"), wide=True),
    Column("STATE", state_of, wide=True),
    Column("VALUE", summary),
)


@kv.command("ls")
@click.argument("prefix", required=False)
@click.option("--prefix", "prefix_option", metavar="PREFIX", help="Only keys that begin so.")
@click.option("--tombstones", is_flag=True, help="Deleted keys too, and entries that do not count.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@pass_session
def list_(
    session: Session, prefix: str | None, prefix_option: str | None, tombstones: bool, limit: int | None
) -> None:
    """List the store's entries: who wrote them, when, and what they say."""
    wanted = prefix or prefix_option

    def show(source: EntrySource) -> None:
        found = source.entries(wanted, tombstones, limit)
        session.emit({"entries": found}, lambda: render(KV_COLUMNS, found, wide=session.wide))

    online_or(session, lambda api: show(FromApi(api)), show)


@kv.command()
@click.argument("key")
@click.option("--tombstones", is_flag=True, help="The key's tombstones too, and entries that do not count.")
@pass_session
def get(session: Session, key: str, tombstones: bool) -> None:
    """Show one entry whole: its stamp, owner, seq and decoded value."""

    def show(source: EntrySource) -> None:
        found = source.entry(key, tombstones)
        if not found:
            raise KeyMissing(
                f"there is no live entry under {key!r}",
                hint=None if tombstones else "--tombstones shows whether it was deleted",
            )
        data: Any = found[0] if len(found) == 1 else {"entries": found}
        session.emit(data, lambda: "\n\n".join(entry_text(entry) for entry in found))

    online_or(session, lambda api: show(FromApi(api)), show)


VECTOR_COLUMNS = (
    Column("OWNER", field("owner")),
    Column("GEN", field("gen")),
    Column("MAX", field("max"), right=True),
    Column("FLOOR", field("floor"), right=True),
    Column("HASH", field("hash")),
    Column("SILENCE", lambda row: human.age(row.get("silence_s")), right=True, optional=True),
    Column("FENCE", field("fence"), optional=True),
    Column("KNOWN", field("known"), wide=True),
)


@kv.command()
@pass_session
def vector(session: Session) -> None:
    """Show how far this node holds each owner's log.

    GEN is the owner's life, MAX its newest write, FLOOR the write up to which tombstones are gone.
    SILENCE is how long nothing was heard of the owner.
    """

    def show(rows: dict[str, Any]) -> None:
        listed = [{"owner": owner, **row} for owner, row in rows.items()]
        session.emit(rows, lambda: render(VECTOR_COLUMNS, listed, wide=session.wide))

    online_or(
        session,
        lambda api: show(api.get_object("/mesh/vector")),
        lambda store: show(store.info()["owners"]),
    )


class KeyMissing(CliError):
    """The store holds nothing under this key."""

    exit_code: ClassVar[int] = Exit.NO


def entry_text(entry: Mapping[str, Any]) -> str:
    """One entry: its stamp as aligned lines, then its value as JSON."""
    pairs = []
    for name, value in entry.items():
        if name == "age_s":
            pairs.append(("age", human.age(value)))
        elif name != "value":
            pairs.append((name, value))
    text = fields(pairs)
    if entry.get("tombstone"):
        return text
    return text + "\nvalue\n" + json.dumps(entry.get("value"), indent=2, ensure_ascii=False)
