"""LIF: how a worker's status follows its health checks, check by check where the number matters."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from meshd.demo.processes import Daemon
from tests.support.backends import Backend, Gate
from tests.support.conformance import UNCHECKED, Fleet, Node, holds_for, opened, transitions
from tests.support.engine_servers import GRPC_ENGINES, grpc_engine
from tests.support.processes import eventually, free_port, log_events

READY_WITHIN_S = 2.0
HELD = {"timeout_secs": 30, "check_interval_secs": 0.05}
"""For backends whose checks are held until the test answers them."""


class Held:
    """A worker on a node that alone checks it, each check answered by the test."""

    def __init__(self, node: Node, backend: Backend, **health: object) -> None:
        self._node = node
        self._url = backend.url
        self._gate = backend.health = Gate()
        self.id = node.register(backend.url, health={**HELD, **health})
        self._gate.wait()

    @property
    def status(self) -> str | None:
        """Its status now."""
        return self._node.status(self._url)

    def answer(self, *statuses: int) -> None:
        """Answer so many checks, and wait until the next one has arrived."""
        for status in statuses:
            self._gate.answer(status)
            self._gate.wait()

    def last(self, status: int) -> bool:
        """Answer a check; return whether none follows it."""
        self._gate.answer(status)
        return self._gate.nobody_comes(for_s=0.6)


@pytest.mark.req("LIF-1")
def test_the_effective_setting_decides_how_a_worker_begins(special: Fleet, backend: Backend) -> None:
    quiet, _, bare = special
    backend.health = 503
    url = "http://127.0.0.1:9"
    quiet.register(url)
    assert quiet.status(url) == "ready"
    bare.register("http://127.0.0.1:9/off", health=UNCHECKED)
    assert bare.status("http://127.0.0.1:9/off") == "ready"
    bare.register("http://127.0.0.1:9/on")
    assert bare.status("http://127.0.0.1:9/on") == "pending"
    quiet.register(backend.url, health={"disable_health_check": False, "check_interval_secs": 0.1})
    assert quiet.status(backend.url) == "pending"
    eventually(lambda: "503" in (quiet.worker(backend.url)["last_error"] or ""), "it is checked")
    backend.health = 200
    eventually(lambda: quiet.status(backend.url) == "ready", "its checks make it ready")


@pytest.mark.req("LIF-2")
def test_thresholds_count_checks_in_a_row_and_start_from_zero_after_each_transition(
    special: Fleet, backend: Backend
) -> None:
    _, _, bare = special
    worker = Held(bare, backend)
    assert worker.status == "pending"
    worker.answer(200, 503, 200)
    assert worker.status == "pending"
    worker.answer(200)
    assert worker.status == "ready"
    worker.answer(503, 503, 200, 503, 503)
    assert worker.status == "ready"
    worker.answer(503)
    assert worker.status == "not_ready"
    worker.answer(200, *[503] * 8, 200, 503, 200)
    assert worker.status == "not_ready"
    worker.answer(200)
    assert worker.status == "ready"
    worker.answer(503, 503, 503)
    assert worker.status == "not_ready"
    # The three that made it not_ready do not count towards the nine that fail it.
    worker.answer(*[503] * 8)
    assert worker.status == "not_ready"
    assert worker.last(503)
    assert worker.status == "failed"


@pytest.mark.req("LIF-2")
@pytest.mark.parametrize("last", [200, 503])
def test_a_worker_that_flaps_while_pending_fails_at_the_thirtieth_check(
    special: Fleet, backend: Backend, last: int
) -> None:
    _, _, bare = special
    worker = Held(bare, backend)
    worker.answer(*[503, 200] * 14, 503)
    assert worker.status == "pending"
    assert worker.last(last)
    assert worker.status == "failed"


@pytest.mark.req("LIF-2", "LIF-3", "LIF-7")
@pytest.mark.parametrize("scheme", ["http", "grpc", "ipc"])
def test_connect_errors_reach_failed_whatever_the_scheme(special: Fleet, scheme: str) -> None:
    _, _, bare = special
    url = "ipc:///tmp/meshd-nobody-listens.sock" if scheme == "ipc" else f"{scheme}://127.0.0.1:{free_port()}"
    mode = {"connection_mode": "grpc", "runtime_type": "sglang"} if scheme == "grpc" else {}
    bare.register(
        url, health={"failure_threshold": 1, "check_interval_secs": 0.05, "timeout_secs": 2}, **mode
    )
    eventually(lambda: bare.status(url) == "failed", "it has failed")
    assert bare.worker(url)["last_error"]


@pytest.mark.req("LIF-3")
def test_a_failed_worker_is_asked_no_more_until_it_is_replaced(special: Fleet, backend: Backend) -> None:
    _, _, bare = special
    backend.health = 503
    health = {"failure_threshold": 1, "check_interval_secs": 0.05}
    id = bare.register(backend.url, health=health)
    eventually(lambda: bare.status(backend.url) == "failed", "it has failed")
    asked = backend.checks
    backend.health = 200
    holds_for(lambda: bare.status(backend.url) == "failed", 1.0, "a failed worker stays failed", every_s=0.1)
    assert backend.checks == asked
    bare.replace(id, {"url": backend.url, "health": health}).expect(202)
    eventually(lambda: bare.status(backend.url) == "ready", "it is ready after it was replaced")


@pytest.mark.req("LIF-3", "SYN-5")
def test_no_peer_revives_a_failed_worker(fleet: Fleet, backend: Backend) -> None:
    a, b, c = fleet
    backend.health = 503
    a.register(backend.url, health={"failure_threshold": 1, "check_interval_secs": 0.05})
    eventually(lambda: a.status(backend.url) == "failed", "it has failed on its owner")
    backend.health = 200
    holds_for(
        lambda: not {"ready", "pending"} & {node.status(backend.url) for node in (a, b, c)},
        2.0,
        "while its owner says failed, it is routable nowhere",
    )
    assert a.status(backend.url) == "failed"


def _cause(node: Node, url: str, words: str) -> str | None:
    error: str | None = node.worker(url)["last_error"]
    return error if error is not None and words in error else None


@pytest.mark.req("LIF-4")
def test_the_cause_of_a_failure_is_shown_and_logged_once_per_change(
    special: Fleet, backend: Backend, other_backend: Backend
) -> None:
    _, _, bare = special
    causes: list[tuple[Callable[[], None], str]] = [
        (lambda: setattr(backend, "health", 503), "503"),
        (lambda: setattr(backend, "delay_s", 5.0), "within"),
        (backend.stop, "refused"),
    ]
    id = bare.register(
        backend.url, health={"check_interval_secs": 0.1, "timeout_secs": 0.3, "failure_threshold": 9}
    )
    eventually(lambda: bare.status(backend.url) == "ready", "it is ready")
    for change, words in causes:
        change()
        cause = eventually(partial(_cause, bare, backend.url, words), f"the cause names {words}")
        shown = bare.ctl("worker", "get", id)
        assert str(cause) in shown.stdout
    told = [
        event["cause"]
        for event in log_events(bare.daemon)
        if event.get("event") == "health_check_failed" and event["url"] == backend.url
    ]
    assert len(told) == len(set(told)) == len(causes)


@pytest.mark.req("LIF-5")
def test_where_that_is_on_a_failed_local_worker_is_removed_everywhere(
    special: Fleet, backend: Backend
) -> None:
    quiet, strict, _ = special
    backend.health = 503
    with quiet.events() as stream:
        opened(stream)
        id = strict.register(backend.url, health={"failure_threshold": 1, "check_interval_secs": 0.05})
        eventually(lambda: stream.of("registered"), "a peer hears of it")
        special.settle(backend.url, None)
        eventually(lambda: stream.of("removed"), "the peer hears of its end")
    assert all(entry["tombstone"] for node in special for entry in node.entries(id))


@pytest.mark.req("LIF-5", "SYN-10")
def test_a_failed_import_is_not_removed_while_reconcile_runs_five_times(
    special: Fleet, backend: Backend
) -> None:
    quiet, strict, _ = special
    id = quiet.register(backend.url)
    eventually(lambda: strict.status(backend.url) == "ready", "the import is ready")
    backend.stop()
    eventually(lambda: strict.status(backend.url) == "failed", "the import has failed")
    before = strict.metrics()["meshd_reconcile_repairs_total"]
    special.let_reconcile(5)
    worker = strict.worker(backend.url)
    assert (worker["status"], worker["origin"], worker["owner"]) == ("failed", "mesh", "quiet")
    assert strict.metrics()["meshd_reconcile_repairs_total"] == before
    assert [entry["tombstone"] for entry in quiet.entries(id)] == [False]


@pytest.mark.req("LIF-6")
def test_a_healthy_worker_is_ready_within_two_seconds_and_a_slow_one_delays_no_other(fleet: Fleet) -> None:
    a, _, _ = fleet
    with ExitStack() as stack:
        slow = [stack.enter_context(Backend()) for _ in range(6)]
        quick = [stack.enter_context(Backend()) for _ in range(6)]
        for backend in slow:
            backend.delay_s = 10.0
            a.register(backend.url, health={"timeout_secs": 5})
        for backend in quick:
            started = time.monotonic()
            a.register(backend.url)
            eventually(partial(a.has, backend.url, "ready"), "it is ready")
            assert time.monotonic() - started <= READY_WITHIN_S
        assert {a.status(backend.url) for backend in slow} == {"pending"}


@pytest.mark.req("LIF-6", "LIF-2")
def test_a_server_that_takes_long_to_load_its_model_is_not_failed_for_it(fleet: Fleet) -> None:
    a, _, _ = fleet
    with Backend() as backend:
        backend.health = 503
        # Ten checks would fail it, and it is asked some fifteen times during the two seconds of the window.
        a.register(backend.url, health={"failure_threshold": 1, "check_interval_secs": 60})
        eventually(lambda: backend.checks >= 30, "all three nodes have asked it many times")
        assert a.status(backend.url) == "pending"
        backend.health = 200
        fleet.settle(backend.url, "ready")


@pytest.fixture
def engines() -> Iterator[dict[str, str]]:
    """A server of every kind of engine: its kind and its URL."""
    with ExitStack() as stack:
        kinds = [*GRPC_ENGINES, "standard"]
        yield {kind: stack.enter_context(grpc_engine(kind)).url for kind in kinds}


@pytest.mark.req("LIF-7")
def test_every_engine_is_asked_by_its_own_health_call(fleet: Fleet, engines: dict[str, str]) -> None:
    a, _, _ = fleet
    for kind, url in engines.items():
        runtime = "external" if kind == "standard" else kind
        a.register(url, connection_mode="grpc", runtime_type=runtime, health={"timeout_secs": 5})
    for kind, url in engines.items():
        eventually(partial(a.has, url, "ready"), f"{kind} is ready")


@pytest.mark.req("LIF-7")
def test_http_checks_use_the_path_and_the_key_of_the_worker(special: Fleet) -> None:
    _, _, bare = special
    with Backend(api_key="a-key-of-its-own") as backend:
        backend.pages["/ping"] = {}
        bare.register(backend.url, api_key="a-key-of-its-own", health={"health_path": "/ping"})
        eventually(lambda: bare.status(backend.url) == "ready", "it is ready")
        assert {key for _, key in backend.asked} == {"Bearer a-key-of-its-own"}
        assert backend.checks == 0


@pytest.mark.req("LIF-7")
def test_the_base_of_a_rank_is_asked_for_it(special: Fleet, backend: Backend) -> None:
    _, _, bare = special
    url = f"http://rank-3.invalid:{backend.port}"
    bare.register(url, dp_base_url=backend.url, dp_rank=3, dp_size=4)
    eventually(lambda: bare.status(url) == "ready", "its server is well")


@pytest.mark.req("LIF-8")
def test_api_and_meshctl_show_the_real_status(fleet: Fleet, backend: Backend) -> None:
    a, _, _ = fleet
    id = a.register(backend.url)
    fleet.settle(backend.url, "ready")
    a.call("POST", f"/workers/{id}/drain").expect(202)
    fleet.settle(backend.url, "draining")
    for node in fleet:
        assert node.worker(backend.url)["is_healthy"] is False
        assert json.loads(node.ctl("-o", "json", "worker", "get", id).stdout)["status"] == "draining"
        assert "draining" in node.ctl("worker", "ls").stdout
        assert list(node.workers("?status=draining")) == [backend.url]
        assert node.why(backend.url)["status"] == "draining"
    a.call("POST", f"/workers/{id}/undrain").expect(202)
    fleet.settle(backend.url, "ready")
    backend.health = 503
    eventually(lambda: a.status(backend.url) == "not_ready", "it is not_ready")
    worker = a.worker(backend.url)
    assert (worker["status"], worker["is_healthy"]) == ("not_ready", False)


@pytest.mark.req("LIF-9", "SYN-3")
def test_a_removal_drains_first_and_peers_are_told_at_once(fleet: Fleet, backend: Backend) -> None:
    a, b, _ = fleet
    id = a.register(backend.url, health={"drain_settle_secs": 1.5})
    fleet.settle(backend.url, "ready")
    with b.events() as stream:
        opened(stream)
        started = time.monotonic()
        a.call("DELETE", f"/workers/{id}").expect(202)
        assert a.status(backend.url) == "draining"
        eventually(lambda: b.status(backend.url) == "draining", "b stops using it")
        assert [entry["value"]["status"] for entry in b.entries(id)] == ["draining"]
        fleet.settle(backend.url, None)
        assert time.monotonic() - started >= 1.5
    assert transitions(stream, backend.url) == [("ready", "draining")]


@pytest.mark.req("LIF-9")
@pytest.mark.parametrize("how", ["drain=0", "drain_settle_secs"])
def test_a_removal_without_drain_is_done_when_it_is_answered(fleet: Fleet, how: str) -> None:
    a, _, _ = fleet
    url = "http://127.0.0.1:9"
    settle = 0 if how == "drain_settle_secs" else 30
    id = a.register(url, health={**UNCHECKED, "drain_settle_secs": settle})
    a.call("DELETE", f"/workers/{id}" + ("?drain=0" if how == "drain=0" else "")).expect(202)
    assert a.call("GET", f"/workers/{id}").status == 404
    fleet.settle(url, None)


@pytest.mark.req("LIF-10", "SYN-5")
def test_an_import_is_checked_from_here_by_this_nodes_settings(special: Fleet, backend: Backend) -> None:
    quiet, strict, _ = special
    quiet.register(backend.url)
    eventually(lambda: strict.status(backend.url) == "ready", "the import is ready")
    assert backend.checks > 0
    backend.health = 503
    eventually(lambda: strict.status(backend.url) == "not_ready", "the checker takes it out of rotation")
    assert quiet.status(backend.url) == "ready"
    backend.health = 200
    eventually(lambda: strict.status(backend.url) == "ready", "a short cut heals by itself")
    assert strict.status(backend.url) == "ready"


@pytest.mark.req("LIF-10")
@pytest.mark.parametrize("mode", ["never", "owner_down"])
def test_check_imports_limits_the_checks_of_imports(
    lone: Callable[..., Daemon], special: Fleet, backend: Backend, mode: str
) -> None:
    quiet, _, _ = special
    daemon = lone("fourth", **{"health.check_imports": mode})
    daemon.join = (quiet.mesh,)
    daemon.start()
    daemon.wait_ready()
    # `strict` checks too, so it is asked without asking: a backend that only lies to `fourth` would not do.
    quiet.register(backend.url)
    fourth = Node(daemon.api, daemon)
    eventually(lambda: fourth.status(backend.url) == "ready", "the word of its owner counts")
    assert fourth.why(backend.url)["checked_here"] is False
    backend.health = 503
    eventually(lambda: special.nodes[1].status(backend.url) == "not_ready", "another node notices")
    assert fourth.status(backend.url) == "ready"
