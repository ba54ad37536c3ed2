"""A daemon that was stopped for a while catches up at once."""

from __future__ import annotations

import time

import pytest

from meshd.demo.processes import Daemon
from tests.support.processes import MeshMaker, agree, eventually, stopped

PAUSE_S = 10.0
CAUGHT_UP_WITHIN_S = 2.0
_UNCHECKED = {"disable_health_check": True}


def _view(daemon: Daemon) -> dict[str, object]:
    return {url: (w["id"], w["owner"], w["status"], w["labels"]) for url, w in daemon.workers().items()}


@pytest.mark.req("MSH-3", "MSH-4", "CRD-5")
def test_a_daemon_stopped_for_ten_seconds_catches_up_with_a_hundred_changes_within_two(
    make_mesh: MeshMaker,
) -> None:
    mesh = make_mesh().start()
    a, b, c = mesh
    ids = {}
    for number in range(40):
        url = f"http://127.0.0.1:{20000 + number}"
        ids[url] = a.register({"url": url, "health": _UNCHECKED})
    eventually(lambda: _view(b).keys() == ids.keys(), "b lists forty workers")

    with stopped(b):
        since = time.monotonic()
        for number in range(60):
            (a, c)[number % 2].register({"url": f"http://127.0.0.1:{21000 + number}", "health": _UNCHECKED})
        for number, worker_id in enumerate(ids.values()):
            if number < 20:
                a.call("DELETE", f"/workers/{worker_id}?drain=0").expect(202)
            else:
                a.call("PATCH", f"/workers/{worker_id}", {"labels": {"changed": "yes"}}).expect(202)
        eventually(lambda: _view(a) == _view(c) and len(_view(a)) == 80, "a and c agree without b")
        time.sleep(max(0.0, PAUSE_S - (time.monotonic() - since)))
    continued = time.monotonic()
    wanted = _view(a)
    eventually(lambda: _view(b) == wanted, "b has caught up")
    took_s = time.monotonic() - continued
    assert took_s <= CAUGHT_UP_WITHIN_S
    mesh.wait_met()
    eventually(lambda: agree(mesh), "all hold the same map")
    assert all(_view(daemon) == wanted for daemon in mesh)
