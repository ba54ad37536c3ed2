"""Commands about nodes: members, info, join, leave, forget."""

import sys
from typing import TYPE_CHECKING, Any

import click

from meshd.cli import human
from meshd.cli.client import Api, path_of
from meshd.cli.complete import member_names
from meshd.cli.offline import online_or
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, fields, render

if TYPE_CHECKING:
    from meshd.cli.offline_store import OfflineStore


def lag_of(member: Row) -> int | None:
    """Entries that a member is known to lack, over all owners; `None` if nobody knows."""
    lag = member.get("lag")
    if isinstance(lag, dict):
        numbers = [part for part in lag.values() if isinstance(part, int)]
        return sum(numbers)
    return lag if isinstance(lag, int) else None


def _round_trip(member: Row) -> str | None:
    return None if member.get("self") else human.milliseconds(member.get("rtt_ms"))


def member_columns(now: float) -> list[Column]:
    """The table of `members`; `now` is Unix time in seconds."""
    return [
        Column("NAME", lambda row: f"{row.get('name')}{' (this node)' if row.get('self') else ''}"),
        Column("STATE", field("state"), state=True),
        Column("ADDRESS", field("address")),
        Column("ZONE", field("zone"), optional=True),
        Column(
            "RTT", lambda row: None if row.get("self") else human.milliseconds(row.get("rtt_ms")), right=True
        ),
        Column("LAG", lag_of, right=True),
        Column("SINCE", lambda row: human.age_since(row.get("since"), now), right=True),
        Column("GEN", field("gen"), wide=True),
        Column("LINKED", field("connected"), wide=True),
        Column("VERSION", field("version"), wide=True),
    ]


@click.command(cls=MeshCommand)
@pass_session
def members(session: Session) -> None:
    """List every node of the mesh as this daemon sees it.

    LAG is the number of entries that a member is known to lack.
    """
    body = session.api().get_rows("/mesh/members", "members")
    rows = sorted(body["members"], key=lambda row: str(row.get("name")))
    session.emit(body, lambda: render(member_columns(session.clock.wall()), rows, wide=session.wide))


def _flat(prefix: str, value: Any) -> list[tuple[str, object]]:
    """A nested body as dotted names; lists of plain values stay one value."""
    if isinstance(value, dict):
        return [
            pair
            for name, inner in value.items()
            for pair in _flat(f"{prefix}.{name}" if prefix else name, inner)
        ]
    return [(prefix, value)]


def status_text(status: Row) -> str:
    """`/mesh/status` as aligned lines, in the order in which the daemon tells them."""
    pairs: list[tuple[str, object]] = []
    for name, value in _flat("", status):
        shown: object = value
        if isinstance(value, int | float) and name.endswith(("_s", ".seconds", "_seconds")):
            name, shown = name.removesuffix("_s"), human.duration(value)
        pairs.append((name, shown))
    return fields(pairs)


@click.command(cls=MeshCommand)
@pass_session
def info(session: Session) -> None:
    """Show what the daemon knows of itself: identity, uptime, counts, digest."""

    def ask(api: Api) -> None:
        status = api.get_object("/mesh/status")
        session.emit(status, lambda: status_text({**status, "asked": str(api)}))

    def read(store: "OfflineStore") -> None:
        found = store.info()
        session.emit(found, lambda: status_text(found))

    online_or(session, ask, read)


@click.command(cls=MeshCommand)
@click.argument("peers", nargs=-1, required=True, metavar="HOST:PORT...")
@pass_session
def join(session: Session, peers: tuple[str, ...]) -> None:
    """Tell the daemon to join a mesh through these nodes (their mesh ports, not their API ports)."""
    body = session.api().call("POST", "/mesh/join", body={"peers": list(peers)}).body
    session.emit(body, lambda: f"dialling {', '.join(peers)}; `meshctl members` shows who was met")


@click.command(cls=MeshCommand)
@click.option("--keep-workers", is_flag=True, help="Leave this node's workers in the mesh.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def leave(session: Session, keep_workers: bool, yes: bool) -> None:
    """Take the daemon out of the mesh, withdrawing its workers everywhere."""
    api = session.api()
    if not keep_workers:
        _confirm(yes, f"withdraw the workers of the node at {api} from the whole mesh and leave?")
    body = api.call("POST", "/mesh/leave", body={"keep_workers": keep_workers}).body
    kept = "its workers stay" if keep_workers else "its workers are withdrawn"
    session.emit(body, lambda: f"the node has left the mesh; {kept}")


@click.command(cls=MeshCommand)
@click.argument("node", shell_complete=member_names)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_session
def forget(session: Session, node: str, yes: bool) -> None:
    """Drop the entries of a node that is gone for good, on every node.

    A node that is alive is not forgotten: it would assert its workers again.
    """
    _confirm(yes, f"drop every worker of node {node!r} from the mesh?")
    body = session.api().call("POST", path_of("mesh", "forget", node), body={}).body
    session.emit(body, lambda: f"{node} is being forgotten; if it returns, its workers return with it")


def _confirm(yes: bool, question: str) -> None:
    """Ask on a terminal; scripts have made up their mind."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)
