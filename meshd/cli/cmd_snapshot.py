"""`meshctl snapshot save|status|restore`: a node's store as one file, and back.

Rules: a snapshot is verified whole before it counts as saved, shown or restored; its file is private, since
it holds the workers' API keys; restoring needs the daemon stopped and keeps the former store under another
name.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import click

from meshd.cli.address import default_data_dir
from meshd.cli.exits import CliError, Exit, Unreachable, UsageProblem
from meshd.cli.options import MeshGroup
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, field, fields, render

if TYPE_CHECKING:
    from meshd.storage import Snapshot

FILE = click.Path(path_type=Path, dir_okay=False)


class NotASnapshot(CliError):
    """The file cannot be used as a snapshot, or the data directory does not take it."""

    exit_code: ClassVar[int] = Exit.NO


@click.group(cls=MeshGroup)
def snapshot() -> None:
    """Save a node's store as one file, look into it, restore it."""


@snapshot.command()
@click.argument("file", type=FILE)
@pass_session
def save(session: Session, file: Path) -> None:
    """Save what the node's disk holds at this moment to FILE, which is replaced once all is there.

    From the daemon, while it runs; with --data-dir also from the files of one that does not run.
    """
    write = _source(session)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
            out.seek(0)
            saved = _read(out, "what the daemon sent")
        unfinished.replace(file)
    except OSError as problem:
        raise UsageProblem(f"cannot write {file}: {problem.strerror or problem}") from problem
    finally:
        with suppress(OSError):
            unfinished.unlink()
    data = {"file": str(file), "size_bytes": file.stat().st_size, **saved.summary()}
    session.emit(data, lambda: f"saved node {saved.node} to {file}\n{_text(saved, file)}")


def _source(session: Session) -> Callable[[BinaryIO], None]:
    """What writes a snapshot into a file: the daemon, or the reader of its files."""
    api = session.api()
    directory = session.data_dir
    if directory is not None and not session.addrs:
        try:
            api.connect()
        except Unreachable:
            session.say(f"no daemon runs on {directory}: saving its files as it left them")
            return partial(_write_offline, directory, session.clock.wall())
    return partial(api.download, "POST", "/snapshot")


@snapshot.command()
@click.argument("file", type=FILE)
@pass_session
def status(session: Session, file: Path) -> None:
    """Verify a snapshot, and show whose it is, when it was taken, and what it holds."""
    found = _open(file)
    data = {"file": str(file), "size_bytes": file.stat().st_size, **found.summary()}
    session.emit(data, lambda: _text(found, file))


@snapshot.command()
@click.argument("file", type=FILE)
@click.option("--replace", is_flag=True, help="Take the place of the store that is there; that one is kept.")
@pass_session
def restore(session: Session, file: Path, replace: bool) -> None:
    """Put a snapshot into the data directory of a daemon that is stopped (--data-dir).

    The node starts a new generation, so nothing that was written since is overwritten, and what was removed
    since stays removed as soon as the node meets its peers.
    """
    directory = session.data_dir or default_data_dir(os.environ)
    found = _open(file)
    from meshd.errors import MeshdError
    from meshd.prefixes import prefix_table
    from meshd.storage import restore_snapshot

    try:
        kept = restore_snapshot(found, directory, prefix_table(), secrets.randbits(63), replace=replace)
    except MeshdError as problem:
        hint = "--replace does that" if "holds a store already" in problem.message else None
        raise NotASnapshot(problem.message, hint=hint) from problem
    data = {"data_dir": str(directory), "kept": kept, **found.summary()}

    def told() -> str:
        text = f"{directory} holds node {found.node} of cluster {found.cluster} as of {_taken(found)}"
        return f"{text}\nthe former store is kept as {', '.join(kept)}" if kept else text

    session.emit(data, told)


def _open(file: Path) -> Snapshot:
    try:
        with file.open("rb") as source:
            return _read(source, str(file))
    except OSError as problem:
        raise UsageProblem(f"cannot read {file}: {problem.strerror or problem}") from problem


def _read(source: BinaryIO, what: str) -> Snapshot:
    from meshd.storage import SnapshotError, read_snapshot  # here, since it is slow to import

    try:
        return read_snapshot(source)
    except SnapshotError as problem:
        raise NotASnapshot(f"{what}: {problem.message}") from problem


def _write_offline(directory: Path, now: float, out: BinaryIO) -> None:
    from meshd.errors import MeshdError
    from meshd.storage import read_offline, snapshot_chunks

    try:
        for chunk in snapshot_chunks(read_offline(directory), int(now * 1000)):
            out.write(chunk)
    except MeshdError as problem:
        raise NotASnapshot(problem.message) from problem


def _taken(found: Snapshot) -> str:
    return datetime.fromtimestamp(found.taken_ms / 1000, UTC).isoformat(timespec="seconds")


OWNERS = (
    Column("OWNER", field("owner")),
    Column("GEN", field("gen")),
    Column("MAX", field("max"), right=True),
    Column("LIVE", field("live"), right=True),
    Column("TOMBSTONES", field("tombstones"), right=True),
)


def _text(found: Snapshot, file: Path) -> str:
    told: dict[str, Any] = found.summary()
    head = fields(
        [
            ("node", found.node),
            ("cluster", found.cluster),
            ("taken", _taken(found)),
            ("size", f"{file.stat().st_size} bytes"),
            ("sha256", told["sha256"]),
        ]
    )
    return f"{head}\n\n{render(OWNERS, told['owners'])}" if told["owners"] else head
