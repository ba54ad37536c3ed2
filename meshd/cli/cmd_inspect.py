"""Commands that look at the mesh: explain, partitions, rtt."""

from __future__ import annotations

from typing import Any

import click

from meshd.cli import human
from meshd.cli.client import path_of
from meshd.cli.cmd_kv import summary
from meshd.cli.exits import Exit
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, fields, render

VALUE_WIDTH = 400


@click.command(cls=MeshCommand)
@click.argument("key")
@pass_session
def explain(session: Session, key: str) -> None:
    """Explain a key of the store: who wrote it, what lost to it, how it came, and which peers have it.

    KEY is a key such as worker:ID or config:NAME; the id of a worker alone will do.
    """
    api = session.api()
    body = api.get_object(path_of("mesh", "explain", key if ":" in key else f"worker:{key}"))
    session.emit(body, lambda: explain_text(body))


def explain_text(body: Row) -> str:
    """The verdict, then each entry with what became of it."""
    owner = body.get("owner")
    head = f"{body.get('key')} is not visible on {body.get('node')}"
    if body.get("visible"):
        head = f"{body.get('key')} shows what {owner} wrote, as {body.get('node')} sees it"
    parts = [head]
    if body.get("removed_here"):
        parts[0] += "; this node removed it itself"
    for entry in body.get("entries") or []:
        parts.append(_entry_text(entry))
    return "\n\n".join(parts)


def _entry_text(entry: Row) -> str:
    told = entry.get("acknowledged") or {}
    dot = entry.get("dot") or {}
    facts: list[tuple[str, object]] = [
        ("in the log of", entry.get("owner")),
        ("verdict", entry.get("verdict")),
        ("written", f"{entry.get('hlc')}, {human.age(entry.get('age_s'))} ago"),
        ("as write", f"{dot.get('seq')} of gen {dot.get('gen')}"),
        ("now at", f"seq {entry.get('seq')} of gen {entry.get('gen')}"),
        ("version", _version(entry)),
        ("came", entry.get("came_by")),
        ("peers that have it", [name for name, has in told.items() if has]),
        ("peers that lack it", [name for name, has in told.items() if not has]),
        ("value", human.clip(summary(entry), VALUE_WIDTH)),
    ]
    return fields(facts, indent="  ")


def _version(entry: Row) -> str | None:
    version = entry.get("version")
    return None if version is None else f"{version}, written by {entry.get('writer')}"


@click.command(cls=MeshCommand)
@click.pass_context
def partitions(ctx: click.Context) -> None:
    """Show who is connected to whom, and the groups that are linked so.

    Exit code 0 if all nodes that are seen form one group, 1 if there are several.
    """
    session = ctx.ensure_object(Session)
    body = session.api().get_object("/mesh/partitions")
    session.emit(body, lambda: partitions_text(body))
    if len(body.get("groups") or []) > 1:
        ctx.exit(Exit.NO)


def partitions_text(body: Row) -> str:
    """The groups, and below them each node's own view, nodes with one view together."""
    groups: list[list[str]] = body.get("groups") or []
    views: dict[str, list[str]] = body.get("views") or {}
    lines = ["one group" if len(groups) == 1 else f"{len(groups)} groups that are not linked"]
    rows = [{"group": number, "nodes": group} for number, group in enumerate(groups, 1)]
    lines.append(render((Column("GROUP", field("group")), Column("NODES", field("nodes"))), rows))
    if unseen := body.get("unseen"):
        lines.append(f"seen by nobody: {', '.join(unseen)}")
    sees = [{"node": node, "sees": peers} for node, peers in sorted(views.items())]
    lines.append(render((Column("NODE", field("node")), Column("CONNECTED TO", field("sees"))), sees))
    return "\n\n".join(lines)


@click.command(cls=MeshCommand)
@pass_session
def rtt(session: Session) -> None:
    """Show the round trips from the daemon to its peers, the slowest first."""
    members = session.api().get_rows("/mesh/members", "members")["members"]
    rows: list[dict[str, Any]] = [
        {name: member.get(name) for name in ("name", "address", "zone", "state", "connected", "rtt_ms")}
        for member in members
        if not member.get("self")
    ]
    rows.sort(key=lambda row: (row["rtt_ms"] is None, -(row["rtt_ms"] or 0.0), str(row["name"])))
    columns = (
        Column("PEER", field("name")),
        Column("RTT", lambda row: human.milliseconds(row.get("rtt_ms")), right=True),
        Column("STATE", field("state"), state=True),
        Column("ZONE", field("zone"), optional=True),
        Column("LINKED", field("connected")),
        Column("ADDRESS", field("address")),
    )
    session.emit({"peers": rows}, lambda: render(columns, rows))
