"""Records as a broken or hostile node might write them: nothing but that node's own workers may suffer."""

from __future__ import annotations

import copy
import random
from typing import Any

import cbor2
import pytest

from meshd.workers.health_machine import HealthSettings
from meshd.workers.record import PREFIX, worker_key
from tests.support.planes import URL, Planes

ODD_VALUES: list[Any] = [
    None,
    "",
    "x",
    "/",
    0,
    -1,
    2**63,
    1.5,
    True,
    [],
    {},
    [[]],
    {"a": {}},
    b"\xff",
    "ready",
    "🦆" * 50,
]
SPEC_FIELDS = [
    "url", "models", "worker_type", "connection_mode", "runtime_type", "provider", "labels", "priority",
    "cost", "api_key", "bootstrap_port", "dp_rank", "health", "max_connection_attempts", "surprise",
]  # fmt: skip
HEALTH_FIELDS = [
    "timeout_secs", "check_interval_secs", "success_threshold", "failure_threshold", "disable_health_check",
    "drain_settle_secs", "health_path",
]  # fmt: skip


def odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD_VALUES))


def odd_record(rng: random.Random, url: str) -> bytes:
    spec: dict[str, Any] = {"url": url, "health": {}}
    for _ in range(rng.randrange(4)):
        spec[rng.choice(SPEC_FIELDS)] = odd(rng)
    for _ in range(rng.randrange(3)):
        if isinstance(spec["health"], dict):
            spec["health"][rng.choice(HEALTH_FIELDS)] = odd(rng)
    record: dict[str, Any] = {"v": 1, "spec": spec, "status": "ready", "owner": "a", "revision": 1}
    for _ in range(rng.randrange(3)):
        record[rng.choice([*record, "removing", "protected", "sealed_key", "later"])] = odd(rng)
    value = bytearray(cbor2.dumps(record))
    if rng.random() < 0.2:
        value[rng.randrange(len(value))] = rng.randrange(256)
    return bytes(value)


@pytest.mark.req("SYN-11", "SEC-4")
@pytest.mark.parametrize("seed", range(40))
def test_odd_records_of_one_node_disturb_neither_the_loop_nor_anybody_elses_workers(seed: int) -> None:
    rng = random.Random(seed)
    planes = Planes("b", "c", health=HealthSettings(check_interval_s=1))
    planes["c"].register(URL, models=[{"id": "m"}])
    planes.run(3)
    before = planes["b"].worker().spec
    for _ in range(60):
        urls = ["http://10.9.9.1:1", "http://10.9.9.2:1", "odd", "file:///etc/passwd", "http://[", URL]
        log = {}
        for url in rng.sample(urls, 3):
            log[worker_key("a", url)] = odd_record(rng, url)
        log[PREFIX + rng.choice(["", "x", "not-a-uuid"])] = odd_record(rng, "http://10.9.9.3:1")
        for name in "bc":
            planes[name].store.receive("a", log)
        planes.mesh.states["a"] = rng.choice(["alive", "down"])
        planes["b"].plane.owner_changed("a", planes.now)
        planes.run(rng.choice([0.0, 0.3, 2.0]))
    for name in "bc":
        assert planes[name].plane.reconcile_stats.faults == 0
        planes[name].store.forget("a")
    planes.run(3)
    assert planes["b"].worker().spec == before
    assert planes["b"].status() == "ready"
    assert len(planes["b"].plane.registry) == 1
    assert planes["b"].plane.unreadable == {}


@pytest.mark.req("SYN-11")
def test_a_fault_of_ours_over_one_key_is_told_and_the_others_are_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planes = Planes("a", "b")
    bad = planes["a"].register()
    planes["a"].register("http://10.0.0.2:8000")
    look = planes["b"].store.visible

    def broken(key: str) -> object:
        if key == bad.key:
            raise RuntimeError("a bug")
        return look(key)

    monkeypatch.setattr(planes["b"].store, "visible", broken)
    planes.mesh.deliver()
    planes["b"].plane.keys_changed(planes["b"].store.take_changed(), 0)
    planes["b"].plane.step(0, 10)
    assert planes["b"].status("http://10.0.0.2:8000") == "ready"
    assert planes["b"].plane.reconcile_stats.faults == 1
    assert [event for _, event, _ in planes["b"].notices] == ["worker_sync_fault"]
