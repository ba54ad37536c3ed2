"""Many workers: no answer keeps the daemon from its other work.

What a turn costs in time is a figure of `make bench`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio

from meshd.api import codec, limits, worker_json
from meshd.workers.model import parse_spec
from meshd.workers.worker import Worker
from tests.support.api_daemon import Caller, FakeDaemon, StreamReader
from tests.support.steps import work_per_step

COUNT = 5 * limits.LISTING_CHUNK + 7
TURNS = math.ceil(COUNT / limits.LISTING_CHUNK)


@pytest.fixture
async def daemon() -> FakeDaemon:
    daemon = FakeDaemon()
    for number in range(COUNT):
        spec = {
            "url": f"http://10.0.{number // 200}.{number % 200}:8000",
            "models": [{"id": "m", "aliases": ["n"]}],
            "health": {"disable_health_check": True},
        }
        daemon.plane.register(parse_spec(spec), 0.0)
    daemon.mesh.after_write()
    return daemon


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the workers that were encoded so far, in order."""
    ids: list[str] = []
    real = worker_json.worker_info

    def counting(worker: Worker, *rest: Any) -> Any:
        ids.append(worker.id)
        return real(worker, *rest)

    monkeypatch.setattr(worker_json, "worker_info", counting)
    return ids


@pytest.mark.req("REG-7", "CTL-4")
async def test_a_long_listing_is_encoded_a_chunk_at_a_time(api: Caller, encoded: list[str]) -> None:
    with work_per_step(lambda: len(encoded)) as steps:
        answer = await api.call("GET", "/workers")
    assert answer.json()["total"] == len(answer.json()["workers"]) == COUNT
    assert len(set(encoded)) == len(encoded) == COUNT
    assert max(steps) <= limits.LISTING_CHUNK
    assert len(steps) == TURNS


@pytest.mark.req("REG-7", "CTL-4")
async def test_a_long_snapshot_is_encoded_a_chunk_at_a_time(
    api: Caller, encoded: list[str], nursery: trio.Nursery
) -> None:
    reader = StreamReader(api)
    with work_per_step(lambda: len(encoded)) as steps:
        nursery.start_soon(reader.run)
        snapshot = await reader.next("snapshot")
    reader.disconnect()
    assert len(snapshot.data["workers"]) == len(encoded) == COUNT
    assert max(steps) <= limits.LISTING_CHUNK
    assert len(steps) == TURNS


@pytest.mark.req("CTL-4")
async def test_a_list_that_nobody_waits_for_still_gives_others_their_turn() -> None:
    """A client that reads at once never makes a write wait, so the pauses cannot be left to the writes."""
    pieces: list[bytes] = []

    async def write(piece: bytes) -> None:
        pieces.append(piece)

    with work_per_step(lambda: len(pieces)) as steps:
        await codec.write_list(range(COUNT), codec.encoder.encode, write)
    assert codec.decode_object(b'{"all":' + b"".join(pieces) + b"}") == {"all": list(range(COUNT))}
    assert steps == [1] * (TURNS + 1)  # the last piece closes the list
