"""Random campaigns: the seeds that once showed a bug, some fixed ones, and some that nobody has tried yet."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest

from meshd.testing import SimCluster
from meshd.testing.campaign import main, play_seed, run
from meshd.testing.plan import PROFILES, WORK, Plan, Step, make_plan
from meshd.testing.play import DEEDS, play
from meshd.testing.shrink import shrink

FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))
PATIENCE_S = 8.0
"""Seconds for the fresh seeds."""


@pytest.mark.req("SIM-3")
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_a_campaign_once_found_stays_mended(path: Path) -> None:
    outcome = play(Plan.read(path))
    assert outcome.violation is None, outcome.details


@pytest.mark.slow
@pytest.mark.req("SIM-2", "SIM-3", "CRD-1", "CRD-4", "CRD-6", "SYN-7")
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_fixed_seeds_hold_in_every_profile(profile: str) -> None:
    told = io.StringIO()
    summary = run(range(1, 4), profile, 5, 1, Path(".sim"), told)
    assert not summary.violations, told.getvalue()


@pytest.mark.slow
@pytest.mark.req("SIM-2", "SIM-3", "CRD-1", "CRD-4", "CRD-6", "SYN-7")
def test_fresh_seeds_hold(tmp_path: Path) -> None:
    first = random.SystemRandom().randrange(10**9)
    told = io.StringIO()
    summary = run(range(first, first + 40), "all", 5, 1, tmp_path, told, PATIENCE_S)
    assert not summary.violations, f"make sim SEEDS=40 FROM={first}\n{told.getvalue()}"


def test_every_step_that_is_planned_can_be_done() -> None:
    assert {kind for profile in PROFILES.values() for kind in profile} == set(DEEDS)


def test_a_seed_makes_one_plan_and_a_replay_file_holds_all_of_it() -> None:
    plan = make_plan(3)
    assert plan == make_plan(3)
    assert plan != make_plan(4)
    assert Plan.from_json(plan.to_json("what it shows")) == plan


@pytest.mark.parametrize("text", ["", "{}", '{"format": "something else"}', "[1]"])
def test_a_file_that_is_no_replay_file_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"replay file|format"):
        Plan.from_json(text)


def test_steps_that_make_no_sense_do_nothing() -> None:
    steps = (
        Step(0.1, "crash", ("a", False)),
        Step(0.2, "crash", ("a", False)),
        Step(0.3, "register", ("a", 1, 1)),
        Step(0.4, "pause", ("a",)),
        Step(0.5, "remove", ("b", 1, True)),
        Step(0.6, "forget", ("b", "b")),
    )
    outcome = play(Plan(1, "all", 2, 1.0, steps))
    assert outcome.violation is None
    assert outcome.faults == {"crash": 1}


def planted(cluster: SimCluster) -> None:
    """A bug: nobody who lost its disk ever runs again."""
    lose = cluster.lose_disk

    def lose_and_raise(name: str) -> None:
        lose(name)
        if cluster["b"].up and cluster["b"].worker("http://10.0.0.3:8000") is not None:
            raise ZeroDivisionError("planted")

    cluster.lose_disk = lose_and_raise  # type: ignore[method-assign]


@pytest.mark.req("SIM-3")
def test_a_plan_is_shrunk_to_the_steps_that_matter() -> None:
    def shows(plan: Plan) -> bool:
        found = play(plan, prepare=planted).violation
        return found is not None and "planted" in found.text

    steps = (
        *(Step(at, "config", ("a", 1, 2)) for at in (1.0, 2.0, 3.0)),
        Step(4.123, "register", ("a", 3, 7)),
        *(Step(at, "reset", ("a", "c")) for at in (5.0, 6.0, 7.0, 8.0)),
        Step(9.5, "lose_disk", ("a",)),
        Step(10.0, "heal", ()),
    )
    plan = Plan(1, "all", 5, 20.0, steps)
    assert shows(plan)
    small = shrink(plan, shows, 60)
    assert [step.do for step in small.steps] == ["register", "lose_disk"]
    assert small.nodes == 2
    assert small.safety_s < 12


@pytest.mark.req("SIM-3")
def test_a_violation_is_told_with_its_seed_its_steps_and_how_to_see_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(cluster: SimCluster, name: str) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(DEEDS, "lose_disk", broken)
    monkeypatch.setitem(PROFILES, "disk", WORK | {"lose_disk": 5})
    code = main(["--seeds", "1", "--from", "7", "--profile", "disk", "--jobs", "1", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 1
    assert "seed 7: no_code_of_ours_raises" in told
    assert "shrunk to 1 steps" in told
    assert f"meshctl sim replay {tmp_path}/disk-7.json" in told
    assert told.splitlines()[-1].startswith("sim: profile disk, 1 seeds, ")
    assert told.rstrip().endswith("violations: 1 (no_code_of_ours_raises 1)")
    assert Plan.read(tmp_path / "disk-7.json").steps[0].do == "lose_disk"


def test_a_campaign_counts_what_it_did() -> None:
    result = play_seed(2, "net", 3)
    assert result.invariant == ""
    assert result.node_seconds > 3 * 60
    assert result.events > 1000
    assert sum(result.faults.values()) > 5


@pytest.mark.parametrize(
    "options",
    [["--seeds", "0"], ["--nodes", "1"], ["--nodes", "27"], ["--jobs", "0"], ["--profile", "nonsense"]],
)
def test_what_cannot_be_played_is_a_usage_error(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    assert options[1] in capsys.readouterr().err


def test_a_campaign_that_is_interrupted_tells_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(cluster: SimCluster) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(DEEDS, "heal", interrupted)
    options = ["--seeds", "9", "--from", "1", "--nodes", "2", "--profile", "net", "--jobs", "1"]
    assert main([*options, "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().out.splitlines()[-1].startswith("sim: profile net, 0 seeds")


def test_a_violation_is_told_also_where_no_replay_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(cluster: SimCluster, *args: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setitem(DEEDS, "register", broken)
    (tmp_path / "file").touch()
    told = io.StringIO()
    assert run([1], "quiet", 2, 1, tmp_path / "file" / "out", told).violations
    assert "no replay file: " in told.getvalue()
    assert "register" in told.getvalue()
