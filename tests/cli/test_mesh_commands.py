from __future__ import annotations

import json

import pytest
import yaml

from tests.cli.conftest import Meshctl
from tests.support.fake_api import Answer, FakeApi

MEMBERS = {
    "members": [
        {
            "name": "b",
            "address": "10.0.0.2:7390",
            "zone": "eu",
            "state": "suspect",
            "gen": "3.00000000000000aa",
            "rtt_ms": 0.42,
            "since": "2026-01-02T03:03:35Z",
            "version": "0.1.0",
            "lag": {"a": 2, "c": 1},
        },
        {
            "name": "a",
            "address": "10.0.0.1:7390",
            "zone": None,
            "state": "alive",
            "gen": "1.00000000000000bb",
            "rtt_ms": None,
            "since": "2026-01-02T01:04:05Z",
            "version": "0.1.0",
            "lag": {},
            "self": True,
        },
    ]
}
STATUS = {
    "node": "a",
    "cluster": "prod",
    "gen": "1.00000000000000bb",
    "uptime_s": 93.2,
    "version": "0.1.0",
    "counts": {"keys": 12, "members": {"alive": 3}},
    "digest": "0123456789abcdef",
}


@pytest.mark.req("CTL-2", "CTL-3")
def test_members_are_listed_by_name_with_state_round_trip_lag_and_age(
    daemon: FakeApi, meshctl: Meshctl
) -> None:
    daemon.on("GET", "/mesh/members", MEMBERS)
    done = meshctl("members")
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["NAME", "STATE", "ADDRESS", "ZONE", "RTT", "LAG", "SINCE"],
        ["a", "(this", "node)", "alive", "10.0.0.1:7390", "-", "-", "0", "2h"],
        ["b", "suspect", "10.0.0.2:7390", "eu", "0.4ms", "3", "30s"],
    ]
    assert "3.00000000000000aa" in meshctl("members", "-o", "wide").stdout


@pytest.mark.req("CTL-1")
def test_json_and_yaml_are_the_daemons_body_unchanged(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/members", MEMBERS)
    assert json.loads(meshctl("members", "-o", "json").stdout) == MEMBERS
    assert yaml.safe_load(meshctl("members", "-o", "yaml").stdout) == MEMBERS


@pytest.mark.req("CTL-1")
def test_no_colours_leave_the_program_when_stdout_is_not_a_terminal(
    daemon: FakeApi, meshctl: Meshctl
) -> None:
    daemon.on("GET", "/mesh/members", MEMBERS)
    assert "\x1b" not in meshctl("members").stdout


@pytest.mark.req("CTL-2", "CTL-3")
def test_info_shows_identity_uptime_counts_and_digest(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/status", STATUS)
    shown = meshctl("info").stdout
    lines = {line.split()[0]: line.split()[1] for line in shown.splitlines()}
    assert lines["node"] == "a"
    assert lines["uptime"] == "1m33s"
    assert lines["counts.keys"] == "12"
    assert lines["counts.members.alive"] == "3"
    assert lines["digest"] == "0123456789abcdef"
    assert lines["asked"] == daemon.url


@pytest.mark.req("CTL-3")
def test_global_options_stand_before_or_after_the_command(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/status", STATUS)
    for words in (
        ("--addr", daemon.url, "-o", "json", "--timeout", "3", "info"),
        ("info", "--addr", daemon.url, "-o", "json", "--timeout", "3"),
        ("-o", "yaml", "info", "-o", "json", "--addr", daemon.url),
    ):
        done = meshctl(*words, aimed=False)
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout) == STATUS


def test_one_command_does_not_ask_two_daemons(daemon: FakeApi, meshctl: Meshctl) -> None:
    done = meshctl("--addr", daemon.url, "info", "--addr", daemon.url)
    assert done.exit_code == 2
    assert "converge" in done.stderr


@pytest.mark.req("CTL-3")
def test_join_sends_every_peer(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("POST", "/mesh/join", Answer({"status": "accepted", "message": "dialling"}, 202))
    done = meshctl("join", "10.0.0.2:7390", "10.0.0.3:7390")
    assert done.exit_code == 0
    assert daemon.requests[-1].body == {"peers": ["10.0.0.2:7390", "10.0.0.3:7390"]}
    assert "meshctl members" in done.stdout


@pytest.mark.req("CTL-3")
@pytest.mark.parametrize(("words", "kept"), [((), False), (("--keep-workers",), True)])
def test_leave_says_whether_the_workers_stay(
    daemon: FakeApi, meshctl: Meshctl, words: tuple[str, ...], kept: bool
) -> None:
    daemon.on("POST", "/mesh/leave", Answer({"status": "accepted"}, 202))
    assert meshctl("leave", *words).exit_code == 0
    assert daemon.requests[-1].body == {"keep_workers": kept}


@pytest.mark.req("CTL-3")
def test_forget_names_the_node_in_the_path(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("POST", "/mesh/forget/old node", Answer({"status": "accepted"}, 202))
    assert meshctl("forget", "old node").exit_code == 0


@pytest.mark.req("CTL-3")
def test_a_command_that_the_daemon_does_not_know_says_so_plainly(meshctl: Meshctl) -> None:
    done = meshctl("forget", "b")
    assert done.exit_code == 1
    assert "has no POST /mesh/forget/b" in done.stderr
    assert "meshctl version" in done.stderr


@pytest.mark.req("CTL-2", "CTL-3")
def test_capacity_shows_value_source_and_breakdowns(daemon: FakeApi, meshctl: Meshctl) -> None:
    body = {
        "capacity": 192,
        "source": "mixed",
        "workers_available": 3,
        "per_model": {"llama": 128, "qwen": 64},
        "cluster": {"a": {"capacity": 192, "workers": 3}},
    }
    daemon.on("GET", "/capacity", body)
    shown = meshctl("capacity", "--model", "llama").stdout
    assert daemon.requests[-1].query == {"model": ["llama"]}
    assert "mixed (ready workers that report" in shown
    assert [line.split() for line in shown.splitlines()][-2:] == [
        ["OWNER", "CAPACITY", "WORKERS"],
        ["a", "192", "3"],
    ]


@pytest.mark.req("CTL-3", "CTL-6")
@pytest.mark.parametrize(("routable", "code"), [(True, 0), (False, 1)])
def test_why_gives_the_verdict_the_reasons_and_an_exit_code(
    daemon: FakeApi, meshctl: Meshctl, routable: bool, code: int
) -> None:
    body = {
        "url": "http://w:1",
        "routable": routable,
        "status": "not_ready",
        "reasons": ["its last health check failed: connection refused"],
        "claims": [{"owner": "b", "id": "1f3a", "healthy": False}],
    }
    daemon.on("GET", "/mesh/why", body)
    done = meshctl("why", "http://w:1")
    assert done.exit_code == code
    assert done.stdout.startswith(f"http://w:1 is {'' if routable else 'not '}routable here: not_ready")
    assert "connection refused" in done.stdout
    assert "OWNER" in done.stdout
