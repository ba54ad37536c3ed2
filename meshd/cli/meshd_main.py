"""The `meshd` program: run the daemon, check a configuration, tell the version.

Thin on purpose: it turns flags into settings, hands them to `meshd.main`, and turns what can go
wrong at start into one clear line and an exit code: 0 stopped as asked, 1 could not start or
failed, 2 the command line or the configuration is wrong.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

import meshd
from meshd.cli.table import Column, field, render
from meshd.config import Config, load_config
from meshd.errors import ConfigError, MeshdError

FAILED = 1
WRONG_SETTINGS = 2

#: Flag parameter of `run` -> the setting it stands for.
FLAGS = {
    "node_name": "node.name",
    "cluster": "node.cluster",
    "data_dir": "node.data_dir",
    "mesh": "mesh.bind",
    "api": "api.bind",
    "join": "mesh.join",
    "log_format": "log.format",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(meshd.__version__, prog_name="meshd", message="%(prog)s %(version)s")
def main() -> None:
    """Share one list of inference servers between gateways.

    `meshd run` starts the daemon; `meshctl` talks to it.
    """


def _config_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--config",
        envvar="MESHD_CONFIG",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="The configuration; conf.d/*.toml beside it is read too.  [env: MESHD_CONFIG]",
    )(command)


def _set_option(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any setting, for example mesh.heartbeat_s=0.5. Repeatable; beats everything else.",
    )(command)


@main.command()
@_config_option
@click.option("--node-name", metavar="NAME", help="This node's name, unique in the cluster.")
@click.option("--cluster", metavar="NAME", help="Only nodes of the same cluster meet.")
@click.option("--data-dir", metavar="DIR", help="Where state is kept; belongs to one node.")
@click.option("--mesh", metavar="HOST:PORT", help="Listen for other nodes here.")
@click.option("--api", metavar="HOST:PORT", help="Serve the HTTP API here.")
@click.option("--join", multiple=True, metavar="HOST:PORT", help="A node to meet. Repeatable.")
@click.option("--log-format", metavar="json|console", help="How the log is written.")
@_set_option
def run(config: Path | None, sets: tuple[str, ...], **given: str | tuple[str, ...] | None) -> None:
    """Run the daemon in the foreground until it is told to stop."""
    flags: dict[str, str | Sequence[str]] = {FLAGS[name]: value for name, value in given.items() if value}
    settings = _load(config, flags, sets)
    reread = partial(load_config, config, dict(os.environ), flags, sets)
    sys.exit(_run(settings, reread))


@main.command()
@_config_option
@_set_option
@click.option("--show", is_flag=True, help="List every setting with its value and where that comes from.")
def validate(config: Path | None, sets: tuple[str, ...], show: bool) -> None:
    """Check a configuration, with the MESHD_* variables that are set, and start nothing."""
    settings = _load(config, {}, sets)
    if show:
        columns = [
            Column("SETTING", field("name")),
            Column("VALUE", field("value")),
            Column("FROM", field("source")),
        ]
        click.echo(render(columns, [explained._asdict() for explained in settings.explain()]))
    else:
        workers = f", {len(settings.worker)} workers declared" if settings.worker else ""
        click.echo(
            f"the configuration is good: node {settings.node.name}, cluster {settings.node.cluster}{workers}"
        )


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"meshd {meshd.__version__}")


def _load(config: Path | None, flags: dict[str, str | Sequence[str]], sets: Sequence[str]) -> Config:
    try:
        return load_config(config, os.environ, flags, sets)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"meshd: {problem}", err=True)
        sys.exit(WRONG_SETTINGS)


def _run(settings: Config, reread: Callable[[], Config]) -> int:
    """Run until it ends; returns the exit code. What we do not know how to explain keeps its traceback."""
    import trio  # here, so that `validate` and `version` need neither it nor the daemon

    from meshd.main import run_daemon
    from meshd.runtime.descriptors import raise_open_files

    raise_open_files()
    try:
        trio.run(run_daemon, settings, reread)
    except KeyboardInterrupt:
        return 0
    except BaseException as failure:
        causes = list(_leaves(failure))
        if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
            return 0
        lines = [explain(cause, settings) for cause in causes]
        if not all(lines):
            raise
        for line in dict.fromkeys(lines):
            click.echo(f"meshd: {line}", err=True)
        return WRONG_SETTINGS if any(_is_setting(cause) for cause in causes) else FAILED
    return 0


def _is_setting(cause: BaseException) -> bool:
    """Whether the configuration itself is at fault, rather than what it met on this machine (a busy port)."""
    return isinstance(cause, ConfigError) and not isinstance(cause.__context__, OSError)


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    """The single errors in a (nested) group."""
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from _leaves(inner)
    else:
        yield failure


def explain(cause: BaseException, settings: Config) -> str | None:
    """One line about an error that the operator can remedy; `None` for what is our own fault."""
    if isinstance(cause, MeshdError):
        return cause.message
    if not isinstance(cause, OSError):
        return None
    listening = f"mesh.bind is {settings.mesh.bind} (--mesh), api.bind is {settings.api.bind} (--api)"
    what = cause.strerror or str(cause)
    if cause.errno == errno.EADDRINUSE:
        return (
            f"a port is in use by another process ({what}): {listening}; "
            "stop that process or choose another port"
        )
    if cause.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no such address ({what}): {listening}"
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
        where = cause.filename or f"{listening}, data directory {settings.node.data_dir}"
        return f"{what}: {where}"
    return None
