"""Click commands and groups that accept the global options anywhere on the line.

Every command carries the global options as parameters of its own; their values are written into
the session as they are parsed. Click parses a group before its command, so what stands after the
command wins; `--addr` adds up.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from meshd.cli.session import OUTPUTS, Session

SUMMARY_LIMIT = 200
"""Characters of a command's first sentence in a list of commands; it wraps."""


class GlobalOption(click.Option):
    """One of the options that every command takes."""


def _set(ctx: click.Context, name: str, value: Any) -> None:
    if value is not None:
        setattr(_session(ctx), name, value)


def _session(ctx: click.Context) -> Session:
    found = ctx.find_object(Session)
    if found is None:
        found = ctx.find_root().obj = Session()
    ctx.obj = found
    return found


def _add_addrs(ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        session = _session(ctx)
        session.addrs = (*session.addrs, *value)


def global_options() -> list[click.Parameter]:
    """Fresh option objects; each command needs its own."""

    def option(*names: str, sets: str, **more: Any) -> GlobalOption:
        return GlobalOption(
            names, expose_value=False, callback=lambda ctx, _param, value: _set(ctx, sets, value), **more
        )

    return [
        GlobalOption(
            ["--addr"],
            metavar="URL|unix:PATH",
            multiple=True,
            expose_value=False,
            callback=_add_addrs,
            help="The daemon's API. Default: MESHCTL_ADDR, else the socket in the data directory, "
            "else 127.0.0.1:7391.",
        ),
        option(
            "--data-dir",
            sets="data_dir",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="A daemon's data directory: talk to its daemon, or read it if that is not running.",
        ),
        option(
            "--token-file",
            sets="token_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="A file with the bearer token. Default: MESHCTL_TOKEN_FILE.",
        ),
        option("-o", "--output", sets="output", type=click.Choice(OUTPUTS), help="How to print."),
        option(
            "--timeout",
            sets="timeout_s",
            metavar="SECONDS",
            type=click.FloatRange(min=0, min_open=True),
            help="How long an answer may take (10), or how long to wait where a command waits (60).",
        ),
    ]


def _write_help(
    params: Iterable[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    own = [
        p.get_help_record(ctx)
        for p in params
        if isinstance(p, click.Option) and not isinstance(p, GlobalOption)
    ]
    shown = [record for record in own if record is not None]
    if shown:
        with formatter.section("Options"):
            formatter.write_dl(shown)
    if ctx.parent is None:
        records = [p.get_help_record(ctx) for p in params if isinstance(p, GlobalOption)]
        with formatter.section("Global options, before or after the command"):
            formatter.write_dl([record for record in records if record is not None])
    else:
        formatter.write_paragraph()
        formatter.write_text(
            "Global options (--addr, --data-dir, --token-file, -o, --timeout): meshctl --help"
        )


class MeshCommand(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options; the global ones are told by `meshctl --help`."""
        _write_help(self.get_params(ctx), ctx, formatter)

    def get_short_help_str(self, limit: int = SUMMARY_LIMIT) -> str:
        """The first sentence, whole: click would cut it to fit one line."""
        return super().get_short_help_str(max(limit, SUMMARY_LIMIT))


class MeshGroup(click.Group):
    """A group that takes the global options too, and makes commands that do."""

    command_class = MeshCommand
    group_class = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The group's options, then its commands."""
        _write_help(self.get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)

    def get_short_help_str(self, limit: int = SUMMARY_LIMIT) -> str:
        """The first sentence, whole."""
        return super().get_short_help_str(max(limit, SUMMARY_LIMIT))
