"""Which of several sources is in force, and what a reload may change. Pure."""

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest

from meshd.config import Config, load_config
from meshd.config_live import (
    CLUSTER_WIDE,
    RELOADABLE,
    Row,
    checked_value,
    decode_value,
    encode_value,
    reloaded,
    settle,
)
from meshd.config_load import SETTINGS
from meshd.errors import BadRequest


def own(*sets: str, env: dict[str, str] | None = None, path: Path | None = None) -> Config:
    return load_config(path, env, sets=("node.name=a", *sets), terminal=False)


def stored(**values: object) -> dict[str, bytes]:
    return {name.replace("__", "."): encode_value(value) for name, value in values.items()}


def row(config: Config, name: str, values: dict[str, bytes]) -> Row:
    return next(row for row in settle(config, values).rows if row.key == name)


@pytest.mark.req("CRD-3")
def test_a_cluster_wide_value_beats_the_default() -> None:
    values = stored(capacity__override=7, health__timeout_secs=1.5)
    config = settle(own(), values).config
    assert (config.capacity.override, config.health.timeout_secs) == (7, 1.5)
    assert config.sources["capacity.override"] == "cluster"
    assert row(own(), "capacity.override", values)[1:4] == (7, 7, "cluster")


@pytest.mark.req("CRD-3")
def test_a_flag_a_variable_and_a_file_beat_the_cluster(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("[capacity]\nslots_per_worker = 3\n")
    config = own("capacity.override=5", env={"MESHD_HEALTH__FAILURE_THRESHOLD": "9"}, path=file)
    values = stored(capacity__override=7, health__failure_threshold=2, capacity__slots_per_worker=8)
    settled = settle(config, values)
    assert settled.config.capacity.override == 5
    assert settled.config.capacity.slots_per_worker == 3
    assert settled.config.health.failure_threshold == 9
    assert row(config, "capacity.override", values)[1:4] == (7, 5, "--set")
    assert settled.problems() == {}


@pytest.mark.req("CRD-3")
def test_a_setting_that_equals_its_default_but_was_given_is_not_beaten() -> None:
    config = own("capacity.override=0")
    assert settle(config, stored(capacity__override=7)).config.capacity.override == 0


@pytest.mark.req("CRD-3")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("capacity.override", encode_value(70_000)),
        ("capacity.override", encode_value("many")),
        ("capacity.override", encode_value(True)),
        ("capacity.override", encode_value(None)),
        ("capacity.override", b"\xff\xff"),
        ("capacity.override", b""),
        ("health.timeout_secs", encode_value(float("nan"))),
        ("health.timeout_secs", cbor2.dumps([1, {2: b"x"}])),
        ("store.max_keys", encode_value(5)),
        ("health.from_the_future", encode_value(5)),
        ("", encode_value(5)),
    ],
)
def test_a_value_that_this_version_cannot_use_changes_nothing_and_is_shown(name: str, value: bytes) -> None:
    settled = settle(own(), {name: value})
    assert settled.config == own()
    assert settled.config.sources == own().sources
    assert list(settled.problems()) == [name]


@pytest.mark.req("CRD-3")
def test_every_setting_that_the_cluster_may_set_round_trips() -> None:
    for name in CLUSTER_WIDE:
        default = SETTINGS[name].default
        assert decode_value(encode_value(checked_value(name, default))) == default
        assert settle(own(), {name: encode_value(default)}).config == own()


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("capacity.override", 70_000, "65535"),
        ("capacity.override", "7", "whole number"),
        ("log.level", "loud", "debug"),
        ("capacity.overide", 1, "did you mean capacity.override?"),
        ("mesh.heartbeat_s", 1, "configuration of each node"),
        ("security.secret_file", "/x", "configuration of each node"),
    ],
)
def test_what_cannot_be_set_is_refused_with_its_name_and_what_can(
    name: str, value: object, told: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        checked_value(name, value)
    assert caught.value.field == name
    assert told in caught.value.message


def test_whole_numbers_and_fractions_of_one_size_are_stored_alike() -> None:
    assert encode_value(checked_value("health.timeout_secs", 3)) == encode_value(3.0)


@pytest.mark.req("CTL-3")
def test_a_reload_takes_on_what_can_change_and_names_the_rest_each_time() -> None:
    running = own("capacity.override=1", "mesh.heartbeat_s=2")
    fresh = own("capacity.override=9", "mesh.heartbeat_s=3", "sync.on_stop=withdraw")
    config, applied, restart = reloaded(running, fresh)
    assert (config.capacity.override, config.sync.on_stop, config.mesh.heartbeat_s) == (9, "withdraw", 2.0)
    assert (sorted(applied), restart) == (["capacity.override", "sync.on_stop"], ["mesh.heartbeat_s"])
    assert reloaded(config, fresh)[1:] == ([], ["mesh.heartbeat_s"])


@pytest.mark.req("CTL-3")
def test_a_setting_that_left_the_file_falls_to_the_cluster_then_to_the_default() -> None:
    config, applied, _ = reloaded(own("capacity.override=1"), own())
    assert applied == ["capacity.override"]
    assert settle(config, stored(capacity__override=7)).config.capacity.override == 7
    assert settle(config, {}).config.capacity.override == 0


def test_what_the_cluster_may_set_a_reload_may_change_too() -> None:
    assert set(CLUSTER_WIDE) < set(RELOADABLE) <= set(SETTINGS)
