"""`meshctl worker ls|get|add|set|rm|drain|undrain`; `wait` has a file of its own.

Rule: what the daemon calls a status is what is shown, never one derived from `is_healthy`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from meshd.cli import human
from meshd.cli.client import path_of
from meshd.cli.cmd_worker_wait import wait, wait_until
from meshd.cli.complete import worker_ids
from meshd.cli.exits import CliError, Exit, UsageProblem
from meshd.cli.find_worker import Worker, find, list_workers, shown_ids
from meshd.cli.options import MeshGroup
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, field, fields, render
from meshd.cli.worker_spec import spec_from, specs_from_file

STATUSES = ("pending", "ready", "not_ready", "failed", "draining")
TYPES = ("regular", "prefill", "decode", "encode")
MODES = ("http", "grpc", "zmq")
ERROR_WIDTH = 60


@click.group(cls=MeshGroup)
def worker() -> None:
    """List, register, change and remove workers.

    A WORKER is named by its URL, its id, or the first four or more characters of its id.
    """


worker.add_command(wait)


def models_of(info: Worker) -> object:
    """The names that a worker serves; none at all means that it takes any model."""
    models = info.get("models")
    if isinstance(models, list) and models:
        return [model.get("id") if isinstance(model, dict) else model for model in models]
    return info.get("model_id") or "any"


def worker_columns(now: float, id_length: int) -> list[Column]:
    """The table of `worker ls`; `now` is Unix time in seconds."""
    return [
        Column("ID", lambda row: str(row.get("id"))[:id_length]),
        Column("URL", field("url")),
        Column("MODEL", models_of),
        Column("STATUS", field("status"), state=True),
        Column("SINCE", lambda row: human.age_since(row.get("since"), now), right=True),
        Column("ORIGIN", field("origin")),
        Column("OWNER", field("owner")),
        Column("TYPE", field("worker_type"), wide=True),
        Column("MODE", field("connection_mode"), wide=True),
        Column("RUNTIME", lambda row: row.get("runtime_type") or row.get("runtime"), wide=True),
        Column("PRIORITY", field("priority"), wide=True, right=True),
        Column("COST", field("cost"), wide=True, right=True),
        Column("LOAD", field("load"), wide=True, right=True),
        Column("REV", field("revision"), wide=True, right=True),
        Column("LABELS", field("labels"), wide=True),
        Column("ERROR", lambda row: human.clip(str(row.get("last_error") or ""), ERROR_WIDTH), optional=True),
    ]


@worker.command("ls")
@click.option("--model", help="Serving this model or alias.")
@click.option("--type", "worker_type", type=click.Choice(TYPES))
@click.option("--status", type=click.Choice(STATUSES))
@click.option("--origin", type=click.Choice(("local", "mesh")))
@click.option("--owner", metavar="NODE", help="Registered on this node.")
@click.option("--label", metavar="K:V", multiple=True, help="Carrying this label. Repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--quiet", "-q", is_flag=True, help="Only the ids, one a line.")
@pass_session
def list_(
    session: Session, /, quiet: bool, label: tuple[str, ...], worker_type: str | None, **query: Any
) -> None:
    """List the workers that this node knows, its own and those of others."""
    labels = [text.replace("=", ":", 1) if ":" not in text else text for text in label]
    body = list_workers(session.api(), {"type": worker_type, "label": labels, **query})
    found = body["workers"]
    if quiet:
        if found:
            click.echo("\n".join(str(info["id"]) for info in found))
        return
    session.emit(body, lambda: _listing(session, body))


def _listing(session: Session, body: Worker) -> str:
    found = body["workers"]
    length = 36 if session.wide else shown_ids(found)
    table = render(worker_columns(session.clock.wall(), length), found, wide=session.wide)
    total = body.get("total", len(found))
    more = f"\n{len(found)} of {total} shown" if isinstance(total, int) and total > len(found) else ""
    return table + more


@worker.command()
@click.argument("worker", shell_complete=worker_ids)
@pass_session
def get(session: Session, worker: str) -> None:
    """Show everything about one worker, the cause of its last failed check included."""
    info = find(session.api(), worker)
    session.emit(info, lambda: worker_text(info, session.clock.wall()))


def worker_text(info: Worker, now: float) -> str:
    """One worker as aligned lines, most important first; unknown fields last, as they are."""
    first = ("id", "url", "status", "since", "last_error", "origin", "owner", "model_id")
    pairs: list[tuple[str, object]] = []
    for name in first:
        value = info.get(name)
        if name == "since" and value:
            value = f"{value} ({human.age_since(value, now)} ago)"
        pairs.append((name, value))
    later = [(name, value) for name, value in info.items() if name not in first and name != "claims"]
    text = fields([*pairs, *later])
    claims = info.get("claims")
    if isinstance(claims, list) and len(claims) > 1:
        columns = [
            Column("CLAIMED BY", field("owner")),
            Column("ID", field("id")),
            Column("HEALTHY", field("healthy")),
        ]
        text += "\n\n" + render(columns, claims)
    return text


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `add` and `set` both take: the fields that PATCH accepts."""
    options: Sequence[Decorator] = (
        click.option("--priority", type=int),
        click.option("--cost", type=float),
        click.option("--label", metavar="K=V", multiple=True, help="Repeatable."),
        click.option(
            "--api-key-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A file that holds the worker's API key (-: stdin).",
        ),
        click.option("--health-path", metavar="PATH"),
        click.option("--health-interval", type=float, metavar="SECONDS"),
        click.option("--health-timeout", type=float, metavar="SECONDS"),
        click.option("--success-threshold", type=int, metavar="N"),
        click.option("--failure-threshold", type=int, metavar="N"),
        click.option("--drain-settle", type=float, metavar="SECONDS"),
        click.option("--health-check/--no-health-check", default=None),
        click.option("--set", multiple=True, metavar="FIELD=JSON", help="Any other field. Repeatable."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@worker.command()
@click.argument("url", required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Specs from JSON or YAML (-: stdin).")
@click.option("--model", multiple=True, metavar="ID", help="A model it serves (none: any). Repeatable.")
@click.option("--type", "worker_type", type=click.Choice(TYPES))
@click.option("--mode", "connection_mode", type=click.Choice(MODES))
@click.option("--runtime", "runtime_type", metavar="NAME", help="sglang, vllm, trtllm, ...")
@click.option("--provider", metavar="NAME")
@click.option("--bootstrap-port", type=int)
@_spec_options
@click.option("--wait", "wait_ready", is_flag=True, help="Until it is ready (see --timeout).")
@pass_session
def add(session: Session, /, url: str | None, file: Path | None, wait_ready: bool, **options: Any) -> None:
    """Register a worker with the node that is asked, which becomes its owner."""
    if (url is None) == (file is None):
        raise UsageProblem(
            "give either a URL or --file", hint="for example: meshctl worker add http://10.0.0.5:8000"
        )
    if url is not None:
        specs = [spec_from(url, options)]
    else:
        if given := [name for name, value in options.items() if value not in (None, ())]:
            raise UsageProblem(
                f"--file holds whole specs and takes no other field (--{given[0].replace('_', '-')})"
            )
        specs = specs_from_file(file) if file is not None else []
    api = session.api()

    def register(spec: dict[str, Any]) -> Any:
        return api.call("POST", "/workers", body=spec).body

    answers = _each(
        session, specs, register, lambda answer: f"{answer['worker_id']}  {answer['url']}  registered"
    )
    if wait_ready:
        waited_s = wait_until(session, api, [str(answer["worker_id"]) for answer in answers], "ready")
        _tell(session, f"ready after {human.duration(waited_s)}")


@worker.command("set")
@click.argument("worker", shell_complete=worker_ids)
@_spec_options
@click.option("--unlabel", metavar="K", multiple=True, help="Drop this label. Repeatable.")
@click.option("--if-match", type=int, metavar="REVISION", help="Only if it still has this revision.")
@pass_session
def set_(session: Session, /, worker: str, if_match: int | None, **options: Any) -> None:
    """Change priority, cost, labels, API key or health settings; labels are merged."""
    patch = spec_from(None, options)
    if not patch:
        raise UsageProblem("nothing to set", hint="for example: meshctl worker set 1f3a --priority 80")
    api = session.api()
    found = find(api, worker)
    headers = {} if if_match is None else {"If-Match": f'"{if_match}"'}
    body = api.call("PATCH", path_of("workers", found["id"]), body=patch, headers=headers).body
    session.emit(body, lambda: f"{found['id']}  {found['url']}  changed")


@worker.command()
@click.argument("workers", nargs=-1, required=True, metavar="WORKER...", shell_complete=worker_ids)
@click.option("--now", is_flag=True, help="Without draining first.")
@click.option("--wait", "wait_gone", is_flag=True, help="Until it is gone (see --timeout).")
@pass_session
def rm(session: Session, workers: tuple[str, ...], now: bool, wait_gone: bool) -> None:
    """Drain workers and remove them everywhere; only their owner can.

    The drain lasts drain_settle_secs, 5 unless the worker says otherwise.
    """
    api = session.api()

    def remove(word: str) -> Any:
        found = find(api, word)
        path = path_of("workers", found["id"])
        body = api.call("DELETE", path, query={"drain": 0 if now else None}).body or {}
        return {"worker_id": found["id"], "url": found["url"], **body}

    word = "removed" if now else "draining, then removed"
    answers = _each(
        session, workers, remove, lambda answer: f"{answer['worker_id']}  {answer['url']}  {word}"
    )
    if wait_gone:
        waited_s = wait_until(session, api, [str(answer["worker_id"]) for answer in answers], "gone")
        _tell(session, f"gone after {human.duration(waited_s)}")


def _tell(session: Session, line: str) -> None:
    """A further line of the answer, for people; JSON and YAML hold one document."""
    if session.for_people:
        click.echo(line)


def _post_each(session: Session, workers: tuple[str, ...], verb: str, done: str) -> None:
    api = session.api()

    def ask(word: str) -> Any:
        found = find(api, word)
        body = api.call("POST", path_of("workers", found["id"], verb)).body or {}
        return {"worker_id": found["id"], "url": found["url"], **body}

    _each(session, workers, ask, lambda answer: f"{answer['worker_id']}  {answer['url']}  {done}")


@worker.command()
@click.argument("workers", nargs=-1, required=True, metavar="WORKER...", shell_complete=worker_ids)
@pass_session
def drain(session: Session, workers: tuple[str, ...]) -> None:
    """Take workers out of rotation on every node, without removing them."""
    _post_each(session, workers, "drain", "draining")


@worker.command()
@click.argument("workers", nargs=-1, required=True, metavar="WORKER...", shell_complete=worker_ids)
@pass_session
def undrain(session: Session, workers: tuple[str, ...]) -> None:
    """Put drained workers back into rotation."""
    _post_each(session, workers, "undrain", "no longer draining")


def _each(
    session: Session, items: Sequence[Any], action: Callable[[Any], Any], line: Callable[[Any], str]
) -> list[Any]:
    """Act on every item, also after one was refused; ends with the first refusal's exit code, at the end.

    A daemon that does not answer ends it at once. Returns the answers when all went well.
    """
    answers: list[Any] = []
    refused: list[CliError] = []
    for item in items:
        try:
            answers.append(action(item))
        except CliError as problem:
            if problem.exit_code not in (Exit.NO, Exit.USAGE) or len(items) == 1:
                raise
            problem.show()
            refused.append(problem)
    if answers:
        data = answers[0] if len(items) == 1 else answers
        session.emit(data, lambda: "\n".join(line(answer) for answer in answers))
    if refused:
        session.say(f"{len(refused)} of {len(items)} failed, the others are done")
        click.get_current_context().exit(refused[0].exit_code)
    return answers
