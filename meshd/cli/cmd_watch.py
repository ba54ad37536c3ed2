"""`meshctl watch`: what happens, as it happens, until Ctrl-C.

Rule: nothing is lost silently. After an outage the stream resumes behind the last event; where
the daemon cannot resume it says `resync` and sends a snapshot, and both are shown.
"""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from meshd.cli import human
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session
from meshd.cli.sse import SseEvent, follow
from meshd.cli.table import coloured

TYPES = (
    "snapshot",
    "registered",
    "replaced",
    "removed",
    "status_changed",
    "origin_changed",
    "capacity",
    "member",
    "resync",
)


def data_of(event: SseEvent) -> Any:
    """The event's data; text where it is not JSON."""
    try:
        return json.loads(event.data)
    except ValueError:
        return event.data


def line_of(event: SseEvent, wall: float) -> str:
    """`12:01:02  status_changed  http://...  ready (was pending)`."""
    when = datetime.fromtimestamp(wall).astimezone().strftime("%H:%M:%S")
    return f"{when}  {event.event:<14}  {_told(event.event, data_of(event))}".rstrip()


def _told(kind: str, data: Any) -> str:
    if not isinstance(data, Mapping):
        return str(data)
    previous = data.get("previous")
    if kind in ("snapshot", "resync"):
        return _snapshot(kind, data)
    if isinstance(worker := data.get("worker"), Mapping):
        was = _was(kind, previous)
        return (
            f"{worker.get('url')}  {coloured(str(worker.get('status')))}{was}  owner {worker.get('owner')}"
            + (f"  {error}" if kind == "status_changed" and (error := worker.get("last_error")) else "")
        )
    if kind == "capacity":
        was = f" (was {previous})" if isinstance(previous, int) else ""
        return f"{data.get('capacity')}{was}  {data.get('source')}  {data.get('workers_available')} workers"
    if kind == "member":
        inner = data.get("member")
        member = inner if isinstance(inner, Mapping) else data
        return f"{member.get('name')}  {coloured(str(member.get('state')))}" + (
            f" (was {previous})" if isinstance(previous, str) else ""
        )
    return json.dumps(data, ensure_ascii=False)


def _was(kind: str, previous: object) -> str:
    if isinstance(previous, Mapping):
        previous = previous.get("origin" if kind == "origin_changed" else "status")
    return f" (was {previous})" if isinstance(previous, str) else ""


def _snapshot(kind: str, data: Mapping[str, Any]) -> str:
    counts = [
        human.count(len(value), name.removesuffix("s"))
        for name, value in data.items()
        if isinstance(value, list) and name in ("workers", "members")
    ]
    lost = "events were missed; what follows is the whole state" if kind == "resync" else ""
    return ", ".join([*counts, *([lost] if lost else [])])


@click.command(cls=MeshCommand)
@click.option("--types", metavar="A,B", help=f"Only these events: {', '.join(TYPES)}.")
@click.option("--since", metavar="ID", help="Resume behind this event id.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--no-snapshot", is_flag=True, help="Leave out the snapshots that the stream starts with.")
@click.option("--no-reconnect", is_flag=True, help="End when the stream ends.")
@pass_session
def watch(
    session: Session,
    types: str | None,
    since: str | None,
    count: int | None,
    no_snapshot: bool,
    no_reconnect: bool,
) -> None:
    """Follow workers, capacity and members; with -o json one JSON object a line.

    Connects again by itself when the daemon restarts.
    """
    events = follow(
        session.api(),
        types=types,
        since=since,
        say=session.say,
        reconnect=not no_reconnect,
        sleep=session.clock.sleep,
    )
    shown = 0
    try:
        for event in events:
            if no_snapshot and event.event == "snapshot":
                continue
            _show(session, event)
            shown += 1
            if shown == count:
                return
    except KeyboardInterrupt:
        return  # the usual way to end it, and no failure


def _show(session: Session, event: SseEvent) -> None:
    if session.for_people:
        click.echo(line_of(event, session.clock.wall()))
    else:
        record = {"id": event.id, "event": event.event, "data": data_of(event)}
        if session.output == "json":
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            from meshd.cli.session import as_yaml

            click.echo("---\n" + as_yaml(record), nl=False)
    sys.stdout.flush()
