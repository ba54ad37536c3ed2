"""WorkerSpec: fields, defaults, limits, and what is kept although it is not known."""

from __future__ import annotations

import pytest

from meshd.errors import BadRequest
from meshd.workers.model import ModelCard, parse_spec, patch_spec, spec_from_plain, spec_to_plain

URL = "http://10.0.0.1:8000"


def test_a_body_with_only_a_url_gets_every_default() -> None:
    spec = parse_spec({"url": URL})
    assert spec_to_plain(spec) == {
        "url": URL,
        "models": [],
        "worker_type": "regular",
        "connection_mode": "http",
        "runtime_type": "unspecified",
        "labels": {},
        "priority": 50,
        "cost": 1.0,
        "health": {},
        "max_connection_attempts": 20,
    }
    assert spec.api_key is None


@pytest.mark.req("SYN-11")
def test_every_field_known_or_not_comes_back_as_it_went_in() -> None:
    body = {
        "url": URL,
        "models": [
            {"id": "llama", "aliases": ["l3"], "context_length": 8192, "nested": {"a": [1, None, "x"]}}
        ],
        "worker_type": "decode",
        "connection_mode": "grpc",
        "runtime_type": "sglang",
        "provider": "openai",
        "labels": {"zone": "eu"},
        "priority": 7,
        "cost": 0.25,
        "bootstrap_port": 9000,
        "dp_base_url": "http://10.0.0.1:7000",
        "dp_rank": 1,
        "dp_size": 4,
        "kv_connector": "NixlConnector",
        "kv_role": "kv_both",
        "kv_engine_id": "e1",
        "kv_block_size": 16,
        "health": {"check_interval_secs": 0.5, "disable_health_check": True, "future": [1, 2.5]},
        "max_connection_attempts": 3,
        "http_pool": {"timeout_secs": 3},
        "resilience": None,
    }
    plain = spec_to_plain(parse_spec(body))
    assert plain == body
    assert spec_to_plain(spec_from_plain(plain)) == body


def test_runtime_is_another_name_of_runtime_type() -> None:
    assert parse_spec({"url": URL, "runtime": "vllm"}).runtime_type == "vllm"
    with pytest.raises(BadRequest) as caught:
        parse_spec({"url": URL, "runtime": "vllm", "runtime_type": "sglang"})
    assert caught.value.field == "runtime"


def test_the_connection_mode_follows_the_scheme_unless_it_is_given() -> None:
    assert parse_spec({"url": "grpc://10.0.0.1:8000"}).connection_mode == "grpc"
    assert parse_spec({"url": "ipc:///run/w.sock"}).connection_mode == "zmq"
    assert parse_spec({"url": "grpc://10.0.0.1:8000", "connection_mode": "http"}).connection_mode == "http"


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({}, "url"),
        ({"url": 5}, "url"),
        ({"url": URL, "priority": "high"}, "priority"),
        ({"url": URL, "priority": -1}, "priority"),
        ({"url": URL, "priority": True}, "priority"),
        ({"url": URL, "cost": -0.5}, "cost"),
        ({"url": URL, "cost": float("nan")}, "cost"),
        ({"url": URL, "labels": {"a": 1}}, "labels"),
        ({"url": URL, "labels": []}, "labels"),
        ({"url": URL, "models": ["llama"]}, "models[0]"),
        ({"url": URL, "models": [{"id": "ok"}, {"aliases": []}]}, "models[1]"),
        ({"url": URL, "models": [{"id": ""}]}, "models[0].id"),
        ({"url": URL, "worker_type": "lazy"}, "worker_type"),
        ({"url": URL, "connection_mode": "pigeon"}, "connection_mode"),
        ({"url": URL, "runtime_type": "abacus"}, "runtime_type"),
        ({"url": URL, "bootstrap_port": 70000}, "bootstrap_port"),
        ({"url": URL, "api_key": 5}, "api_key"),
        ({"url": URL, "dp_base_url": "nowhere"}, "dp_base_url"),
        ({"url": URL, "health": []}, "health"),
        ({"url": URL, "health": {"timeout_secs": 0}}, "health.timeout_secs"),
        ({"url": URL, "health": {"timeout_secs": "5"}}, "health.timeout_secs"),
        ({"url": URL, "health": {"success_threshold": 1.5}}, "health.success_threshold"),
        ({"url": URL, "health": {"failure_threshold": 0}}, "health.failure_threshold"),
        ({"url": URL, "health": {"drain_settle_secs": -1}}, "health.drain_settle_secs"),
        ({"url": URL, "health": {"disable_health_check": "no"}}, "health.disable_health_check"),
        ({"url": URL, "health": {"health_path": "health"}}, "health.health_path"),
        ({"url": URL, "custom": float("inf")}, "custom"),
        ({"url": URL, "custom": 2**70}, "custom"),
    ],
)
def test_a_malformed_body_is_refused_by_the_name_of_the_field(body: object, field: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_spec(body)
    assert caught.value.field == field


def test_an_unknown_field_nested_beyond_reason_is_refused() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(BadRequest) as caught:
        parse_spec({"url": URL, "custom": deep})
    assert caught.value.field == "custom"


@pytest.mark.req("CRD-7")
def test_whole_floats_in_unknown_fields_become_integers_and_known_floats_stay_floats() -> None:
    spec = parse_spec({"url": URL, "cost": 2, "custom": {"x": 3.0, "y": 2.5}})
    assert type(spec.cost) is float
    assert spec.extra == {"custom": {"x": 3, "y": 2.5}}
    assert type(spec.extra["custom"]["x"]) is int


@pytest.mark.req("SEC-3")
def test_an_api_key_is_in_neither_plain_form_nor_repr() -> None:
    spec = parse_spec({"url": URL, "api_key": "sk-secret"})
    assert spec.api_key == "sk-secret"
    assert "secret" not in repr(spec_to_plain(spec)) + repr(spec)


def test_a_patch_merges_labels_and_health_and_null_removes_a_member() -> None:
    spec = parse_spec({"url": URL, "labels": {"a": "1", "b": "2"}, "health": {"timeout_secs": 3}})
    patched = patch_spec(
        spec, {"priority": 9, "labels": {"b": None, "c": "3"}, "health": {"check_interval_secs": 2}}
    )
    assert patched.priority == 9
    assert patched.labels == {"a": "1", "c": "3"}
    assert patched.health == {"timeout_secs": 3, "check_interval_secs": 2}
    assert patch_spec(patched, {"api_key": None}).api_key == ""


@pytest.mark.parametrize(
    ("patch", "field"),
    [({"url": URL}, "url"), ({"models": []}, "models"), ({"priority": "x"}, "priority"), ("x", None),
     ({"labels": {"a": 2}}, "labels"), ({"health": {"timeout_secs": -1}}, "health.timeout_secs")],
)  # fmt: skip
def test_a_patch_of_another_field_or_with_a_bad_value_is_refused(patch: object, field: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        patch_spec(parse_spec({"url": URL}), patch)
    assert caught.value.field == field


def test_words_of_a_newer_version_stay_readable() -> None:
    spec = spec_from_plain({"url": URL, "worker_type": "planner", "priority": 10**12})
    assert spec.worker_type == "planner"
    assert spec.models == ()
    assert spec_from_plain({"url": URL, "models": [{"id": "m"}]}).models == (ModelCard("m"),)
