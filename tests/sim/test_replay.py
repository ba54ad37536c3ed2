"""`meshctl sim replay`: a run shown again, a column for each node."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from meshd.cli.cmd_sim import sim
from meshd.testing.plan import Plan, Step
from meshd.testing.play import DEEDS


def replay_file(folder: Path) -> Path:
    """A partition, and a worker on its small side."""
    steps = (
        Step(2.0, "isolate", ("b",)),
        Step(3.0, "register", ("b", 1, 1)),
        Step(12.0, "heal", ()),
    )
    path = folder / "plan.json"
    path.write_text(Plan(1, "net", 2, 15.0, steps).to_json(), encoding="utf-8")
    return path


@pytest.mark.req("CTL-3", "SIM-3")
def test_a_replay_shows_what_each_node_went_through(tmp_path: Path) -> None:
    done = CliRunner().invoke(sim, ["replay", str(replay_file(tmp_path))])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["time", "a", "b"]
    assert any("=== fault partition b | a" in line for line in lines)
    at_b = lines[0].index("b", 12)
    assert any(line[at_b:].startswith("command register http://10.0.0.1") for line in lines)
    assert lines[-1] == "all invariants held"


@pytest.mark.req("CTL-6")
def test_a_replay_that_shows_a_violation_exits_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(DEEDS, "isolate", broken)
    done = CliRunner().invoke(sim, ["replay", str(replay_file(tmp_path)), "--since", "1.5"])
    assert done.exit_code == 1
    assert "VIOLATED: no_code_of_ours_raises" in done.output
    assert "start a" not in done.output


@pytest.mark.req("CTL-5")
def test_a_file_that_is_no_replay_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}", encoding="utf-8")
    done = CliRunner().invoke(sim, ["replay", str(path)])
    assert done.exit_code == 2
    assert "not a replay file" in done.output
