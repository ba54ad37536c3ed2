"""`meshctl config` and `meshctl reload`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Meshctl
from tests.support.fake_api import Answer, FakeApi

ROW: dict[str, Any] = {
    "key": "capacity.override",
    "cluster": 9,
    "in_force": 9,
    "source": "cluster",
    "default": 0,
    "wanted": "a whole number of requests from 0 to 65535",
    "doc": "The capacity, pinned.",
    "problem": None,
    "set_on": "b",
    "age_s": 61.0,
    "beaten_by": None,
    "cluster_wide": True,
}
UNSET = {**ROW, "key": "log.level", "cluster": None, "in_force": "info", "source": "default", "age_s": None}


@pytest.fixture
def settings(daemon: FakeApi) -> FakeApi:
    daemon.on("GET", "/config", {"settings": [ROW, UNSET]})
    daemon.on("GET", "/config/capacity.override", ROW)
    daemon.on("GET", "/config/log.level", UNSET)
    daemon.on("PUT", "/config/capacity.override", ROW)
    daemon.on("DELETE", "/config/capacity.override", {**ROW, "cluster": None})
    return daemon


@pytest.mark.req("CTL-3")
def test_settings_are_listed_with_what_is_in_force_and_whence(settings: FakeApi, meshctl: Meshctl) -> None:
    lines = meshctl("config", "ls").stdout.splitlines()
    assert lines[0].split() == ["SETTING", "CLUSTER", "IN", "FORCE", "HERE", "FROM", "SET", "ON", "AGE"]
    assert lines[1].split() == ["capacity.override", "9", "9", "cluster", "b", "1m1s"]
    assert [line.split()[0] for line in lines[1:]] == ["capacity.override", "log.level"]
    assert "log.level" not in meshctl("config", "ls", "--set").stdout
    assert json.loads(meshctl("config", "ls", "-o", "json").stdout)["settings"][0] == ROW


@pytest.mark.req("CTL-3", "CTL-6")
def test_get_says_by_its_exit_code_whether_the_cluster_sets_it(settings: FakeApi, meshctl: Meshctl) -> None:
    done = meshctl("config", "get", "capacity.override")
    assert done.exit_code == 0
    assert "in force here  9" in done.stdout
    done = meshctl("config", "get", "log.level")
    assert done.exit_code == 1
    assert "not set" in done.stdout


@pytest.mark.req("CTL-3")
@pytest.mark.parametrize(
    ("word", "sent"),
    [("9", 9), ("0.5", 0.5), ("true", True), ("debug", "debug"), ("/health", "/health"), ("[1]", "[1]")],
)
def test_values_are_sent_as_what_they_look_like(
    settings: FakeApi, meshctl: Meshctl, word: str, sent: object
) -> None:
    assert meshctl("config", "set", "capacity.override", word).exit_code == 0
    assert settings.requests[-1].body == {"value": sent}


@pytest.mark.req("CTL-3")
def test_a_node_whose_own_value_counts_is_told_on_stderr(settings: FakeApi, meshctl: Meshctl) -> None:
    beaten = {**ROW, "in_force": 3, "source": "--set", "beaten_by": "--set"}
    settings.on("PUT", "/config/capacity.override", beaten)
    done = meshctl("config", "set", "capacity.override", "9")
    assert done.exit_code == 0
    assert "this node's own value counts here, from --set" in done.stderr


@pytest.mark.req("CTL-3", "CTL-6")
def test_a_refused_value_is_a_usage_error_that_names_the_setting(settings: FakeApi, meshctl: Meshctl) -> None:
    refusal = {"error": "must be less", "code": "BAD_REQUEST", "field": "capacity.override"}
    settings.on("PUT", "/config/capacity.override", Answer(refusal, 400))
    done = meshctl("config", "set", "capacity.override", "70000")
    assert done.exit_code == 2
    assert "must be less (field: capacity.override)" in done.stderr


@pytest.mark.req("CTL-3")
def test_a_setting_is_taken_back(settings: FakeApi, meshctl: Meshctl) -> None:
    done = meshctl("config", "unset", "capacity.override")
    assert done.exit_code == 0
    assert done.stdout == "capacity.override is not set for the cluster any more\n"


@pytest.mark.req("CTL-3")
def test_reload_tells_what_holds_now_and_what_waits(daemon: FakeApi, meshctl: Meshctl) -> None:
    workers = {"added": ["http://x:1"], "changed": [], "removed": [], "refused": []}
    body = {"applied": ["log.level"], "needs_restart": ["mesh.bind"], "workers": workers}
    daemon.on("POST", "/reload", {"status": "reloaded", **body})
    done = meshctl("reload")
    assert done.exit_code == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["log.level", "mesh.bind", "http://x:1"]
    refusal = {"error": "store.bogus: there is no such setting", "code": "BAD_CONFIG", "field": "store.bogus"}
    daemon.on("POST", "/reload", Answer(refusal, 400))
    done = meshctl("reload")
    assert done.exit_code == 2
    assert "store.bogus" in done.stderr
