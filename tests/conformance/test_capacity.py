"""CAP: how many requests the fleet takes, on every surface that tells it."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import Any

import pytest

from meshd.demo.processes import program
from tests.support.backends import Backend
from tests.support.conformance import UNCHECKED, Fleet, Node, opened
from tests.support.processes import StreamEvent, eventually

URL = "http://127.0.0.1:9"
FIELDS = ("capacity", "source", "workers_available")


def _reads(node: Node, *wanted: object) -> bool:
    capacity = node.get("/capacity")
    return tuple(capacity[name] for name in FIELDS) == wanted


def _label(value: object) -> dict[str, str]:
    return {"max_running_requests": str(value)}


def _told(event: StreamEvent) -> tuple[Any, ...]:
    return tuple(event.data[name] for name in FIELDS)


@pytest.mark.req("CAP-1", "CAP-3")
def test_the_first_tier_that_applies_gives_the_value(fleet: Fleet) -> None:
    a, b, _ = fleet
    fleet.each(lambda node: _reads(node, 1024, "legacy_fallback", 0), "no worker is ready")
    a.register(f"{URL}/1", health=UNCHECKED)
    steps: list[tuple[object, ...]] = [(64, "mixed", 1)]
    assert _reads(a, *steps[0])
    b.register(f"{URL}/2", labels=_label(10), health=UNCHECKED)
    fleet.each(lambda node: _reads(node, 74, "mixed", 2), "one reports, one does not")
    id = a.workers()[f"{URL}/1"]["id"]
    a.call("PATCH", f"/workers/{id}", {"labels": _label(5)}).expect(202)
    assert _reads(a, 15, "worker_reported", 2)
    fleet.each(lambda node: _reads(node, 15, "worker_reported", 2), "both report")
    for node in fleet:
        shown = node.ctl("capacity")
        assert "15" in shown.stdout
        assert "worker_reported" in shown.stdout


@pytest.mark.req("CAP-1")
def test_an_operator_may_pin_the_value(special: Fleet) -> None:
    _, _, bare = special
    assert _reads(bare, 77, "override", 0)
    bare.register(URL, labels=_label(5), health=UNCHECKED)
    assert _reads(bare, 77, "override", 1)


@pytest.mark.req("CAP-2")
@pytest.mark.parametrize("value", ["70000", "65536", "-1"])
def test_an_override_out_of_range_is_a_configuration_error_that_names_the_field(value: str) -> None:
    argv = [program("meshd"), "validate", "--set", f"capacity.override={value}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, -6, -11)
    assert "capacity.override" in done.stderr
    assert "65535" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.req("CAP-2")
def test_the_sum_is_cut_off_at_its_limit_and_comes_down_again(fleet: Fleet) -> None:
    a, _, _ = fleet
    a.register(f"{URL}/1", labels=_label(40_000), health=UNCHECKED)
    id = a.register(f"{URL}/2", labels=_label(10**30), health=UNCHECKED)
    assert _reads(a, 65_535, "worker_reported", 2)
    a.remove(id)
    assert _reads(a, 40_000, "worker_reported", 1)


@pytest.mark.req("CAP-3", "CAP-4")
def test_it_shrinks_on_every_node_when_a_worker_turns_not_ready(
    fleet: Fleet, backend: Backend, other_backend: Backend
) -> None:
    a, _, c = fleet
    a.register(backend.url, labels=_label(10))
    a.register(other_backend.url, labels=_label(5))
    fleet.each(lambda node: _reads(node, 15, "worker_reported", 2), "both count")
    with c.events("?types=capacity") as stream:
        opened(stream)
        backend.health = 503
        fleet.each(lambda node: _reads(node, 5, "worker_reported", 1), "one counts")
        eventually(lambda: stream.of("capacity"), "the change is told")
        assert [_told(event) for event in stream.of("capacity")] == [(5, "worker_reported", 1)]
        other_backend.health = 503
        fleet.each(lambda node: _reads(node, 1024, "legacy_fallback", 0), "none counts")
        eventually(lambda: len(stream.of("capacity")) == 2, "the change of tier is told")
    assert _told(stream.of("capacity")[-1]) == (1024, "legacy_fallback", 0)


@pytest.mark.req("CAP-4")
def test_a_watcher_that_subscribes_after_an_unwatched_change_gets_the_latest(fleet: Fleet) -> None:
    a, _, _ = fleet
    with a.events("?types=capacity") as before:
        opened(before)
    a.register(URL, labels=_label(9), health=UNCHECKED)
    with a.events("?types=capacity") as stream:
        opened(stream)
        assert stream.of("snapshot")[0].data["capacity"]["capacity"] == 9
        watched = subprocess.run(
            [program("meshctl"), "--addr", f"http://{a.api}", "-o", "json", "capacity"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert '"capacity": 9' in watched.stdout
        id = a.worker(URL)["id"]
        a.call("PATCH", f"/workers/{id}", {"labels": _label(11)}).expect(202)
        eventually(lambda: stream.of("capacity"), "the next change is told")
    assert [_told(event) for event in stream.of("capacity")] == [(11, "worker_reported", 1)]


@pytest.mark.req("CAP-4")
def test_a_change_of_tier_alone_is_told(fleet: Fleet) -> None:
    a, b, _ = fleet
    id = a.register(URL, health=UNCHECKED)
    eventually(lambda: _reads(b, 64, "mixed", 1), "b counts it")
    with a.events("?types=capacity") as on_a, b.events("?types=capacity") as on_b:
        for stream in (on_a, on_b):
            opened(stream)
        a.call("PATCH", f"/workers/{id}", {"labels": _label(64)}).expect(202)
        for stream in (on_a, on_b):
            eventually(partial(stream.of, "capacity"), "the change of tier is told")
            assert [_told(event) for event in stream.of("capacity")] == [(64, "worker_reported", 1)]


@pytest.mark.req("CAP-5")
def test_http_events_and_prometheus_agree_and_count_each_url_once(fleet: Fleet) -> None:
    a, b, c = fleet
    model = [{"id": "m"}]
    a.register(f"{URL}/1", labels=_label(3), models=model, health=UNCHECKED)
    fleet.each(lambda node: node.worker(f"{URL}/1"), "it is listed")
    # The same URL, also registered on b: one worker to every reader.
    b.register(f"{URL}/1", labels=_label(3), models=model, health=UNCHECKED)
    b.register(f"{URL}/2", labels=_label(4), models=model, health=UNCHECKED)
    fleet.each(lambda node: _reads(node, 7, "worker_reported", 2), "each URL counts once")
    for node in fleet:
        capacity = node.get("/capacity")
        assert capacity["per_model"] == {"m": 7}
        assert sum(capacity["cluster"].values()) == 7
        assert node.get("/capacity?model=m")["capacity"] == 7
        samples = node.metrics()
        assert samples["meshd_backend_capacity"] == 7
        assert samples["meshd_backend_workers_available"] == 2
        assert samples["meshd_backend_capacity_recompute_total"] > 0
        sources = {name: value for name, value in samples.items() if "meshd_backend_capacity_source{" in name}
        assert sorted(sources.values()) == [0, 0, 0, 1]
        assert sources['meshd_backend_capacity_source{source="worker_reported"}'] == 1
        with node.events("?types=capacity") as stream:
            opened(stream)
            assert stream.of("snapshot")[0].data["capacity"] == capacity
    assert a.get("/capacity")["cluster"] == {a.name: 3, b.name: 4}
    assert b.get("/capacity")["cluster"] == {b.name: 7}
    assert c.get("/capacity")["cluster"] == {a.name: 3, b.name: 4}


@pytest.mark.req("CAP-6")
def test_labels_win_over_the_server_and_count_only_as_positive_numbers(fleet: Fleet) -> None:
    a, _, _ = fleet
    with Backend() as tells, Backend() as silent:
        tells.pages["/get_server_info"] = {"max_running_requests": 21}
        id = a.register(tells.url, runtime_type="sglang")
        fleet.each(lambda node: _reads(node, 21, "worker_reported", 1), "the server's word counts")
        a.call("PATCH", f"/workers/{id}", {"labels": _label(4)}).expect(202)
        fleet.each(lambda node: _reads(node, 4, "worker_reported", 1), "the label counts")
        a.remove(id)
        for value in ("many", "0", "-3", "1.5"):
            id = a.register(silent.url, labels=_label(value))
            eventually(lambda: _reads(a, 64, "mixed", 1), "an unusable label is as none")
            a.remove(id)
            eventually(lambda: _reads(a, 1024, "legacy_fallback", 0), "it is gone")
