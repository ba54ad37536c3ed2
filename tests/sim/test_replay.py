"""`meshctl sim replay`: a run shown again, a column for each node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from meshd.cli.cmd_sim import sim
from meshd.testing.plan import Plan, Step, make_plan
from meshd.testing.play import DEEDS
from meshd.testing.replay import read


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


@pytest.mark.req("CTL-5", "SIM-3")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nodes": 0}, "it has 0 nodes"),
        ({"nodes": 100_000}, "1 to 26 can be played"),
        ({"safety_s": 1e99}, "its safety phase takes 1e+99 s"),
        ({"settings": {"health.nonsense": 1}}, "its settings: health.nonsense"),
        ({"steps": [[1.0, "levitate", "a"]]}, "there is no step 'levitate' in this version"),
        ({"steps": [[1.0, "register", "a"]]}, "step 1 (1.000  register a): missing a required argument"),
        (
            {"steps": [[1.0, "heal"], [2.0, "isolate", "z"]]},
            "step 2 (2.000  isolate z): there is no node 'z'",
        ),
        ({"steps": [[1.0, "partition", "a,z"]]}, "there is no node 'z'; there are a, b"),
        ({"steps": [[2.0, "heal"], [1.0, "heal"]]}, "its time is not one after"),
        ({"steps": [[float("nan"), "heal"]]}, "its time is not one after"),
        ({"steps": [[float("inf"), "heal"]]}, "its time is not one after"),
    ],
)
def test_a_replay_file_that_cannot_be_played_says_why_and_shows_no_violation(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    path = replay_file(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")
    done = CliRunner().invoke(sim, ["replay", str(path)])
    assert done.exit_code == 2, done.output
    assert told in done.output


def test_a_file_of_endless_lists_is_no_replay_file(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="not a replay file"):
        read(path)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "found").glob("*.json")), ids=lambda p: p.stem
)
def test_what_was_found_can_be_replayed(path: Path) -> None:
    assert read(path) == Plan.read(path)


def test_every_random_plan_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for nodes, profile in ((5, "storm"), (2, "all"), (26, "all")):
        plan = make_plan(4, profile, nodes)
        path.write_text(plan.to_json("what it shows"), encoding="utf-8")
        assert read(path) == plan
