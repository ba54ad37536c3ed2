"""A fake daemon and a way to call meshctl in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshd.cli.meshctl_main import main
from meshd.cli.session import Clock, Session
from tests.support.fake_api import FakeApi, serving

Meshctl = Callable[..., Result]

#: 2026-01-02T03:04:05Z, the time at which every test takes place.
NOW = 1767323045.0


@dataclass
class FakeClock:
    """Virtual time: sleeping only moves it, and is written down."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def as_clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, wall=lambda: NOW, sleep=self.sleep)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def daemon() -> Iterator[FakeApi]:
    with serving(FakeApi()) as api:
        yield api


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str | None]:
    """No settings of the person who runs the tests, and an empty home."""
    return {
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "MESHCTL_ADDR": None,
        "MESHCTL_TOKEN_FILE": None,
        "MESHD_NODE__DATA_DIR": None,
    }


@pytest.fixture
def meshctl(daemon: FakeApi, clock: FakeClock, environment: dict[str, str | None]) -> Meshctl:
    """Call meshctl with these words, aimed at the fake daemon unless `aimed` is false."""

    def call(*words: str, aimed: bool = True, env: dict[str, str] | None = None, stdin: str = "") -> Result:
        aim = {"MESHCTL_ADDR": daemon.url} if aimed else {}
        session = Session(clock=clock.as_clock())
        return CliRunner().invoke(
            main,
            words,
            obj=session,
            env={**environment, **aim, **(env or {})},
            input=stdin,
            prog_name="meshctl",
        )

    return call
