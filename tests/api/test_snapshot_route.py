"""`POST /snapshot`: whole, one at a time, and never a damaged one."""

from __future__ import annotations

import io
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import trio

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog
from meshd.storage import open_sqlite, read_snapshot
from tests.support.api_daemon import Caller, FakeDaemon, make_app


@pytest.fixture
async def stored(tmp_path: Path) -> FakeDaemon:
    """A daemon whose disk holds more than one chunk; its database stays open, as a daemon's does."""
    store = open_sqlite(tmp_path, "normal", "a", "default")
    store.load()
    log = OwnerLog("a", (4, 99))
    for number in range(900):
        log.append(f"worker:{number}", bytes([number % 251]) * 600, number)
    store.write([PutLog(log.head()), PutEntries("a", tuple(log.entries.values()))])
    return FakeDaemon(tmp_path)


@pytest.mark.req("CRD-8", "CTL-3")
async def test_a_snapshot_holds_what_the_disk_holds(stored: FakeDaemon) -> None:
    answer = (await Caller(make_app(stored)).call("POST", "/snapshot")).expect(200)
    assert answer.headers["content-type"] == "application/octet-stream"
    snapshot = read_snapshot(io.BytesIO(answer.body))
    assert snapshot.node == "a"
    assert snapshot.state.logs["a"].live_count == 900
    assert stored.mesh.flushes == 1


@pytest.mark.req("CRD-8")
async def test_one_snapshot_at_a_time_also_after_one_that_broke_off(stored: FakeDaemon) -> None:
    app = make_app(stored)
    caller = Caller(app)
    went_out = trio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        went_out.set()
        await trio.sleep_forever()

    async def receive() -> MutableMapping[str, Any]:
        return await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, caller.scope("POST", "/snapshot", {}), receive, send)
        await went_out.wait()
        assert (await caller.call("POST", "/snapshot")).expect(503).json()["code"] == "UNAVAILABLE"
        nursery.cancel_scope.cancel()
    (await caller.call("POST", "/snapshot")).expect(200)


@pytest.mark.req("CRD-8", "CTL-5")
async def test_a_store_that_cannot_be_read_is_an_error_and_not_half_a_file(
    stored: FakeDaemon, tmp_path: Path
) -> None:
    caller = Caller(make_app(stored))
    stored.mesh.flushed = False
    assert "disk refuses" in (await caller.call("POST", "/snapshot")).expect(500).json()["error"]
    stored.mesh.flushed = True
    other = FakeDaemon(tmp_path / "nothing-here")
    answer = (await Caller(make_app(other)).call("POST", "/snapshot")).expect(500).json()
    assert answer["code"] == "STORAGE"
