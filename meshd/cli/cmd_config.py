"""`meshctl config ls|get|set|unset`, and `meshctl reload`: settings while daemons run.

Rule: what a setting takes is the daemon's to say, so that this program and the daemon may differ in age;
here a value is only read as JSON where it is JSON, and as text where it is not.
"""

import json
from typing import Any

import click
from click.shell_completion import CompletionItem

from meshd.cli import human
from meshd.cli.client import Api, path_of
from meshd.cli.complete import offer
from meshd.cli.exits import Exit
from meshd.cli.options import MeshCommand, MeshGroup
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, fields, render


def _names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Settings that begin so, each with what it takes."""

    def fetch(api: Api) -> list[CompletionItem]:
        rows = api.get_rows("/config", "settings")["settings"]
        return [
            CompletionItem(str(row["key"]), help=str(row.get("wanted")))
            for row in rows
            if str(row["key"]).startswith(incomplete)
        ]

    return offer(ctx, fetch)


def _remark(row: Row) -> str | None:
    """Why the cluster's value does not count on the node that was asked, if it does not."""
    if problem := row.get("problem"):
        return f"left out here: {problem}"
    if beaten_by := row.get("beaten_by"):
        return f"this node's own value counts here, from {beaten_by}"
    return None


COLUMNS = (
    Column("SETTING", field("key")),
    Column("CLUSTER", field("cluster")),
    Column("IN FORCE HERE", field("in_force")),
    Column("FROM", field("source")),
    Column("SET ON", field("set_on"), optional=True),
    Column("AGE", lambda row: human.age(row.get("age_s")), right=True, optional=True),
    Column("DEFAULT", field("default"), wide=True),
    Column("TAKES", field("wanted"), wide=True),
    Column("REMARK", _remark, optional=True),
)


@click.group(cls=MeshGroup)
def config() -> None:
    """Settings of the whole cluster, in force on every node as they change.

    What a node sets itself (flag, variable, file) beats them; they beat the defaults.
    """


@config.command("ls")
@click.option("--set", "only_set", is_flag=True, help="Only those that the cluster sets.")
@pass_session
def list_(session: Session, only_set: bool) -> None:
    """List the settings that the cluster may set, and what is in force on the node that is asked."""
    body = session.api().get_rows("/config", "settings")
    rows = [row for row in body["settings"] if not only_set or _is_set(row)]
    session.emit({**body, "settings": rows}, lambda: render(COLUMNS, rows, wide=session.wide))


def _is_set(row: Row) -> bool:
    return row.get("cluster") is not None or row.get("problem") is not None


@config.command()
@click.argument("key", shell_complete=_names)
@click.pass_context
def get(ctx: click.Context, key: str) -> None:
    """Show one setting: the cluster's value, what is in force here and whence, and what it takes.

    Exit code 0 if the cluster sets it, 1 if it does not.
    """
    session = ctx.ensure_object(Session)
    row = session.api().get_object(path_of("config", key))
    session.emit(row, lambda: _text(row))
    if not _is_set(row):
        ctx.exit(Exit.NO)


def _text(row: Row) -> str:
    cluster = row.get("cluster")
    return fields(
        [
            ("setting", row.get("key")),
            ("cluster", "not set" if cluster is None else human.text(cluster)),
            ("in force here", human.text(row.get("in_force"))),
            ("from", row.get("source")),
            ("remark", _remark(row)),
            ("set on", row.get("set_on")),
            ("age", human.age(row["age_s"]) if row.get("age_s") is not None else None),
            ("default", human.text(row.get("default"))),
            ("takes", row.get("wanted")),
            ("meaning", row.get("doc")),
        ]
    )


@config.command("set")
@click.argument("key", shell_complete=_names)
@click.argument("value")
@pass_session
def set_(session: Session, key: str, value: str) -> None:
    """Set a setting on every node that does not set it itself."""
    body = {"value": _value_of(value)}
    row: Any = session.api().call("PUT", path_of("config", key), body=body).body
    session.emit(row, lambda: f"{key} is {human.text(row.get('cluster'))} for the cluster")
    if remark := _remark(row):
        session.say(remark)


def _value_of(text: str) -> object:
    """A number or truth value as such, everything else as the text that it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


@config.command()
@click.argument("key", shell_complete=_names)
@pass_session
def unset(session: Session, key: str) -> None:
    """Take a cluster-wide setting back; each node falls to its own value, or to the default."""
    row: Any = session.api().call("DELETE", path_of("config", key)).body
    session.emit(row, lambda: f"{key} is not set for the cluster any more")


@click.command(cls=MeshCommand)
@pass_session
def reload(session: Session) -> None:
    """Have the daemon read its files again and take on what it can without a restart.

    A bad file changes nothing, and the answer says what is wrong with it.
    """
    body: Any = session.api().call("POST", "/reload", body={}).body
    session.emit(body, lambda: _reload_text(body))
    for refused in (body.get("workers") or {}).get("refused") or []:
        session.say(f"worker {refused.get('url')} was refused: {refused.get('error')}")


def _reload_text(body: Row) -> str:
    workers = body.get("workers") or {}
    lines = [
        ("in force now", body.get("applied")),
        ("waits for a restart", body.get("needs_restart")),
        *((f"workers {what}", workers.get(what)) for what in ("added", "changed", "removed")),
    ]
    return fields(lines) or "read again; nothing is different"
