"""`meshctl explain`, `partitions`, `rtt`, `diff` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshd.cli.cmd_diff import differences, held, winner
from tests.cli.conftest import Meshctl
from tests.cli.test_offline import data_dir as data_dir
from tests.support.fake_api import Answer, FakeApi, serving

ENTRY: dict[str, Any] = {
    "key": "worker:x",
    "owner": "b",
    "gen": "3.00000000000000aa",
    "seq": 7,
    "dot": {"gen": "2.00000000000000bb", "seq": 5},
    "hlc": "2026-01-02T03:00:00.000Z",
    "age_s": 245.0,
    "tombstone": False,
    "visible": True,
    "readable": True,
    "foreign": False,
    "version": None,
    "writer": "b",
    "value": {"spec": {"url": "http://x:1"}, "status": "ready"},
}


def row(key: str = "worker:x", **fields: Any) -> dict[str, Any]:
    return {**ENTRY, "key": key, **fields}


@pytest.mark.req("CTL-3")
def test_explain_tells_who_wrote_a_key_and_who_has_it(daemon: FakeApi, meshctl: Meshctl) -> None:
    told = {
        "verdict": "counts",
        "came_by": "from b, which is connected",
        "acknowledged": {"b": True, "c": False},
    }
    body = {"key": "worker:x", "node": "a", "visible": True, "owner": "b", "entries": [{**ENTRY, **told}]}
    daemon.on("GET", "/mesh/explain/worker:x", body)
    for words in (("worker:x",), ("x",)):
        done = meshctl("explain", *words)
        assert done.exit_code == 0
        for text in ("shows what b wrote", "peers that have it  b", "peers that lack it  c", "4m5s ago"):
            assert text in done.stdout
    refusal = {"error": "no such key", "code": "KEY_NOT_FOUND"}
    daemon.on("GET", "/mesh/explain/worker:y", Answer(refusal, 404))
    assert meshctl("explain", "worker:y").exit_code == 1


@pytest.mark.req("CTL-3", "CTL-6")
def test_partitions_are_counted_and_told_by_the_exit_code(daemon: FakeApi, meshctl: Meshctl) -> None:
    body: dict[str, Any] = {"views": {"a": ["b"], "b": ["a"]}, "groups": [["a", "b"]], "unseen": []}
    daemon.on("GET", "/mesh/partitions", body)
    done = meshctl("partitions")
    assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "one group")
    body = {"views": {"a": [], "b": []}, "groups": [["a"], ["b"]], "unseen": ["c"]}
    daemon.on("GET", "/mesh/partitions", body)
    done = meshctl("partitions")
    assert done.exit_code == 1
    assert "seen by nobody: c" in done.stdout


@pytest.mark.req("CTL-3")
def test_round_trips_are_listed_the_slowest_first(daemon: FakeApi, meshctl: Meshctl) -> None:
    members = [
        {"name": "a", "self": True, "rtt_ms": 0.0, "state": "alive"},
        {"name": "b", "rtt_ms": 0.4, "state": "alive", "connected": True},
        {"name": "c", "rtt_ms": None, "state": "down", "connected": False},
        {"name": "d", "rtt_ms": 40.0, "state": "alive", "connected": True},
    ]
    daemon.on("GET", "/mesh/members", {"members": members})
    lines = meshctl("rtt").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["d", "40.0ms"], ["b", "0.4ms"], ["c", "-"]]


VECTOR = {"b": {"gen": "3.00000000000000aa", "max": 7}}


@pytest.mark.req("CTL-3")
def test_the_side_that_is_further_in_the_owners_log_wins_also_by_a_removal() -> None:
    here = held([row()], VECTOR)
    for reach, wins in (((3, 9), "b"), ((3, 5), "a"), ((4, 0), "b"), ((2, 90), "a")):
        vector = {"b": {"gen": f"{reach[0]}.00000000000000aa", "max": reach[1]}}
        assert winner("worker:x", here, held([], vector))[0] == wins
    assert winner("worker:x", here, held([], {}))[0] == "a"
    assert winner("worker:x", here, held([], VECTOR))[0] is None


@pytest.mark.req("CTL-3")
def test_of_a_setting_the_greater_version_wins() -> None:
    older = held([row("config:x", version=2, writer="b", value=1)], VECTOR)
    newer = held([row("config:x", version=3, writer="a", value=2, owner="a")], {})
    assert winner("config:x", older, newer)[0] == "b"
    assert winner("config:x", newer, older)[0] == "a"


def test_equal_content_is_no_difference_whatever_its_position() -> None:
    assert differences(held([row()], VECTOR), held([row(seq=99, age_s=1)], {})) == []
    assert differences(held([row(visible=False)], VECTOR), held([], {})) == []


@pytest.mark.req("CTL-3", "CTL-6")
def test_two_apis_are_compared(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/store", {"entries": [row(), row("worker:y")]})
    daemon.on("GET", "/mesh/vector", VECTOR)
    with serving(FakeApi()) as other:
        other.on("GET", "/mesh/store", {"entries": [row("worker:y")]})
        other.on("GET", "/mesh/vector", {"b": {"gen": "3.00000000000000aa", "max": 3}})
        done = meshctl("diff", daemon.url, other.url, "-o", "json")
        assert done.exit_code == 1
        (found,) = json.loads(done.stdout)["differences"]
        assert (found["key"], found["wins"], found["b"]) == ("worker:x", "a", None)
        assert "differ on 1 key" in meshctl("diff", daemon.url, other.url).stdout
    assert meshctl("diff", daemon.url, daemon.url).exit_code == 0
    done = meshctl("diff", daemon.url, "node-b")
    assert done.exit_code == 2
    assert "the address of its API" in done.stderr


@pytest.mark.req("CTL-1", "CTL-3")
def test_a_data_directory_is_compared_with_its_snapshot(
    data_dir: Path, tmp_path: Path, meshctl: Meshctl
) -> None:
    file = tmp_path / "a.snapshot"
    assert meshctl("snapshot", "save", str(file), "--data-dir", str(data_dir), aimed=False).exit_code == 0
    done = meshctl("diff", str(data_dir), str(file), aimed=False)
    assert done.exit_code == 0, done.output
    assert "show the same" in done.stdout


@pytest.fixture
def well(daemon: FakeApi) -> FakeApi:
    daemon.on("GET", "/readyz", {"ready": True})
    counts = {"keys": 3, "owners": 2, "foreign": 0, "unreadable": 0}
    status = {"node": "a", "version": "1", "uptime_s": 60.0, "counts": counts, "storage": {"ok": True}}
    daemon.on("GET", "/mesh/status", {**status, "cut_off_s": None, "halted": None})
    members = [
        {"name": "a", "self": True, "state": "alive", "version": "1", "lag": {}},
        {"name": "b", "state": "alive", "version": "1", "lag": {}, "connected": True, "rtt_ms": 0.3},
    ]
    daemon.on("GET", "/mesh/members", {"members": members})
    daemon.on("GET", "/mesh/partitions", {"views": {}, "groups": [["a", "b"]], "unseen": []})
    daemon.on("GET", "/config", {"settings": []})

    def workers(request: Any) -> Answer:
        total = 2 if request.query.get("status") == ["ready"] else 0
        return Answer({"workers": [], "total": total})

    daemon.on("GET", "/workers", workers)
    return daemon


@pytest.mark.req("CTL-3", "CTL-6")
def test_a_sound_node_has_no_finding_but_what_is_well(well: FakeApi, meshctl: Meshctl) -> None:
    done = meshctl("doctor")
    assert done.exit_code == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}


@pytest.mark.req("CTL-3", "CTL-6")
@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        ("/mesh/status", {"halted": "two processes"}, "stopped publishing: two processes"),
        ("/mesh/status", {"cut_off_s": 61.0}, "cut off, since 1m1s"),
        ("/mesh/status", {"storage": {"ok": False, "last_error": "full", "pending": 3}}, "full; 3 keys wait"),
        ("/mesh/members", {"members": [{"name": "c", "state": "down"}]}, "down: c"),
        ("/mesh/partitions", {"groups": [["a"], ["b"]]}, "2 groups that are not linked: a; b"),
        ("/workers", {"workers": [], "total": 0}, "none is registered"),
        ("/config", {"settings": [{"key": "x", "problem": "unknown"}]}, "x is left out here: unknown"),
    ],
)
def test_each_fault_is_found_and_failures_are_the_exit_code(
    well: FakeApi, meshctl: Meshctl, path: str, change: dict[str, Any], told: str
) -> None:
    before = well.routes["GET", path]
    body = before.body if isinstance(before, Answer) else {}
    well.on("GET", path, {**body, **change})
    done = meshctl("doctor")
    assert told in done.stdout
    assert done.exit_code == (1 if "FAIL" in done.stdout else 0)
    assert ("FAIL" in done.stdout) == (path not in ("/workers", "/config"))


@pytest.mark.req("CTL-6", "MSH-8")
def test_check_fails_on_a_node_that_takes_itself_for_cut_off(well: FakeApi, meshctl: Meshctl) -> None:
    daemon = well
    daemon.on("GET", "/capacity", {"workers_available": 1})
    assert meshctl("check").exit_code == 0
    daemon.on("GET", "/mesh/status", {"node": "a", "cut_off_s": 12.0})
    done = meshctl("check")
    assert done.exit_code == 1
    assert "cut off from the mesh, since 12s" in done.stdout
