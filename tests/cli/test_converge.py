from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import FakeClock, Meshctl
from tests.support.fake_api import Answer, FakeApi, Request, serving


def status(node: str, digest: str) -> dict[str, Any]:
    return {"node": node, "digest": digest, "counts": {"keys": 3}}


def two(daemon: FakeApi, other: FakeApi) -> tuple[str, ...]:
    return ("converge", "--addr", daemon.url, "--addr", other.url)


@pytest.mark.req("CTL-3", "CTL-6")
@pytest.mark.parametrize(("digest", "code"), [("aaaa", 0), ("bbbb", 1)])
def test_nodes_agree_if_their_digests_are_equal(
    daemon: FakeApi, meshctl: Meshctl, digest: str, code: int
) -> None:
    daemon.on("GET", "/mesh/status", status("a", "aaaa"))
    with serving(FakeApi()) as other:
        other.on("GET", "/mesh/status", status("b", digest))
        done = meshctl(*two(daemon, other), aimed=False)
    assert done.exit_code == code
    assert ("2 nodes agree" in done.stdout) is (code == 0)
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [["a", "aaaa"], ["b", digest]]


def test_several_addresses_may_stand_in_the_environment(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/status", status("a", "aaaa"))
    done = meshctl("converge", "-o", "json", env={"MESHCTL_ADDR": f"{daemon.url},{daemon.url}"})
    assert len(json.loads(done.stdout)["nodes"]) == 2


@pytest.mark.req("CTL-6")
def test_a_node_that_does_not_answer_never_counts_as_agreeing(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/status", status("a", "aaaa"))
    done = meshctl("converge", "--addr", daemon.url, "--addr", "127.0.0.1:1", aimed=False)
    assert done.exit_code == 1
    assert "1 did not tell" in done.stdout
    assert "connection refused" in done.stdout


@pytest.mark.req("CTL-3")
def test_waiting_ends_when_they_agree_and_tells_how_long_it_took(
    daemon: FakeApi, meshctl: Meshctl, clock: FakeClock
) -> None:
    digests = iter(["old", "old", "new"])

    def catching_up(_request: Request) -> Answer:
        return Answer(status("b", next(digests)))

    daemon.on("GET", "/mesh/status", status("a", "new"))
    with serving(FakeApi()) as other:
        other.on("GET", "/mesh/status", catching_up)
        done = meshctl(*two(daemon, other), "--wait", "-o", "json", aimed=False)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["agreed"] is True
    assert answer["waited_s"] == pytest.approx(sum(clock.slept))
    assert len(clock.slept) == 2


@pytest.mark.req("CTL-6")
def test_waiting_in_vain_is_a_timeout(daemon: FakeApi, meshctl: Meshctl, clock: FakeClock) -> None:
    daemon.on("GET", "/mesh/status", status("a", "aaaa"))
    with serving(FakeApi()) as other:
        other.on("GET", "/mesh/status", status("b", "bbbb"))
        done = meshctl(*two(daemon, other), "--wait", "--timeout", "2", aimed=False)
    assert done.exit_code == 4
    assert sum(clock.slept) == pytest.approx(2)
    assert "still differ" in done.stderr


@pytest.mark.req("CTL-3")
def test_one_node_tells_what_it_knows_of_the_others(daemon: FakeApi, meshctl: Meshctl) -> None:
    nodes = [
        {"name": "a", "digest": "aaaa", "state": "alive", "lag": 0},
        {"name": "b", "digest": "bbbb", "state": "alive", "lag": 4},
        {"name": "c", "digest": "cccc", "state": "left", "lag": 9},
    ]
    daemon.on("GET", "/mesh/converge", {"nodes": nodes})
    done = meshctl("converge")
    assert done.exit_code == 1
    assert "2 nodes do not agree" in done.stdout
    assert "cccc" not in done.stdout


@pytest.mark.req("CTL-3")
@pytest.mark.parametrize(("lag", "code"), [({"a": 0}, 0), ({"a": 2}, 1), (None, 1)])
def test_without_digests_of_the_others_their_lag_decides(
    daemon: FakeApi, meshctl: Meshctl, lag: dict[str, int] | None, code: int
) -> None:
    daemon.on("GET", "/mesh/status", status("a", "aaaa"))
    members = [
        {"name": "a", "state": "alive", "lag": {}},
        {"name": "b", "state": "alive", "lag": lag},
        {"name": "c", "state": "down", "lag": {"a": 9}},
    ]
    daemon.on("GET", "/mesh/members", {"members": members})
    done = meshctl("converge")
    assert done.exit_code == code, done.stdout
    if code == 0:
        assert "as a sees it" in done.stdout
