"""What one invocation of meshctl knows: the global options, the clock, and how to print.

Owns the meaning of the global options. Rules: what stands after the command beats what stands
before it; stdout carries the answer and nothing else; notes go to stderr.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from meshd.cli import address
from meshd.cli.client import DEFAULT_TIMEOUT_S, Api
from meshd.cli.exits import UsageProblem

OUTPUTS = ("table", "wide", "json", "yaml")
WAIT_DEFAULT_S = 60.0


@dataclass(frozen=True)
class Clock:
    """The time, so that tests can bring their own: steady and wall seconds, and sleeping."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Session:
    """The global options as far as they were given, and what follows from them."""

    addrs: tuple[str, ...] = ()
    data_dir: Path | None = None
    token_file: Path | None = None
    output: str = "table"
    timeout_s: float | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def wide(self) -> bool:
        """Whether tables show every column."""
        return self.output == "wide"

    @property
    def for_people(self) -> bool:
        """Whether the output is a table or sentence rather than JSON or YAML."""
        return self.output in ("table", "wide")

    def api(self) -> Api:
        """The one daemon that the options point to; nothing is contacted yet."""
        if len(self.addrs) > 1:
            raise UsageProblem(
                "this command asks one daemon, but --addr was given " + f"{len(self.addrs)} times",
                hint="only `meshctl converge` takes several",
            )
        return self._api(address.candidates(self.addrs, self.data_dir, os.environ))

    def apis(self) -> list[Api]:
        """One daemon for each `--addr` (or each word of `MESHCTL_ADDR`); else the one found by itself."""
        named = self.addrs
        if not named and self.data_dir is None:
            named = tuple(word for word in os.environ.get("MESHCTL_ADDR", "").split(",") if word.strip())
        if not named:
            return [self.api()]
        return [self._api([address.parse(word)]) for word in named]

    def api_of(self, found: list[address.Address]) -> Api:
        """The daemon at the first of these places that accepts; nothing is contacted yet."""
        return self._api(found)

    def wait_s(self) -> float:
        """How long a command that waits may wait."""
        return WAIT_DEFAULT_S if self.timeout_s is None else self.timeout_s

    def emit(self, data: Any, human: Callable[[], str]) -> None:
        """Print `data` as JSON or YAML if that was asked for, else what `human` returns."""
        if self.output == "json":
            click.echo(json.dumps(data, indent=2, ensure_ascii=False))
        elif self.output == "yaml":
            click.echo(as_yaml(data), nl=False)
        else:
            click.echo(human())

    def say(self, note: str) -> None:
        """A note for the person at the terminal; never part of the answer."""
        click.echo(f"meshctl: {note}", err=True)

    def _api(self, found: list[address.Address]) -> Api:
        timeout_s = DEFAULT_TIMEOUT_S if self.timeout_s is None else self.timeout_s
        api = Api(
            found, token=self._token(), timeout_s=timeout_s, searched=f"the data directory {self.data_dir}"
        )
        click.get_current_context().find_root().call_on_close(api.close)
        return api

    def _token(self) -> str | None:
        named = self.token_file or (Path(env) if (env := os.environ.get("MESHCTL_TOKEN_FILE")) else None)
        if named is None:
            return None
        try:
            token = named.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageProblem(f"cannot read the token file {named}: {problem}") from problem
        if not token or not token.isprintable() or " " in token:
            raise UsageProblem(
                f"the token file {named} holds no token", hint="it must be one line, the token alone"
            )
        return token


def as_yaml(data: Any) -> str:
    """`data` as a YAML document."""
    import yaml  # here, since it is slow to import and rarely wanted

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


pass_session = click.make_pass_decorator(Session, ensure=True)
