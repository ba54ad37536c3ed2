"""`/events`: the snapshot, the order, resuming, falling behind, and the end of a stream."""

from __future__ import annotations

import pytest
import trio

from meshd.api import limits
from meshd.api.eventlog import EventLog
from meshd.protocol.effects import MemberChanged
from tests.support.api_daemon import Caller, FakeDaemon, StreamReader

UNCHECKED = {"health": {"disable_health_check": True}}


async def _register(api: Caller, number: int = 1) -> str:
    spec = {"url": f"http://10.0.0.{number}:8000", **UNCHECKED}
    id: str = (await api.call("POST", "/workers", spec)).expect(202).json()["worker_id"]
    return id


async def _open(
    nursery: trio.Nursery, api: Caller, target: str = "/events", headers: dict[str, str] | None = None
) -> StreamReader:
    reader = StreamReader(api, target, headers)
    nursery.start_soon(reader.run)
    return reader


@pytest.mark.req("REG-7", "CTL-4")
async def test_a_stream_starts_with_a_snapshot_of_workers_members_and_capacity(
    api: Caller, nursery: trio.Nursery
) -> None:
    id = await _register(api)
    reader = await _open(nursery, api)
    first = await reader.next()
    assert first.kind == "snapshot"
    assert [worker["id"] for worker in first.data["workers"]] == [id]
    assert [member["name"] for member in first.data["members"]] == ["a"]
    assert first.data["capacity"]["capacity"] == 64


@pytest.mark.req("REG-7")
async def test_events_come_in_order_with_the_worker_and_what_was_before(
    api: Caller, nursery: trio.Nursery
) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    id = await _register(api)
    (await api.call("POST", f"/workers/{id}/drain")).expect(202)
    (await api.call("DELETE", f"/workers/{id}?drain=0")).expect(202)
    kinds = ("registered", "replaced", "status_changed", "removed")
    events = [await reader.next(*kinds) for _ in range(3)]
    assert [event.kind for event in events] == ["registered", "status_changed", "removed"]
    assert {event.data["worker"]["id"] for event in events} == {id}
    assert events[0].data["worker"]["status"] == "ready"
    assert events[1].data["previous"] == "ready"
    assert events[1].data["worker"]["status"] == "draining"
    assert events[2].data["worker"]["status"] == "draining"


@pytest.mark.req("MSH-3")
async def test_each_event_is_one_write_made_before_the_registration_is_answered(
    api: Caller, nursery: trio.Nursery
) -> None:
    reader = await _open(nursery, api, "/events?types=registered")
    await reader.next("snapshot")
    before = len(reader.writes)
    await _register(api)
    await trio.testing.wait_all_tasks_blocked()
    assert len(reader.writes) == before + 1
    assert reader.writes[-1].startswith(b"event: registered\nid: ")
    assert reader.writes[-1].endswith(b"\n\n")


@pytest.mark.req("CAP-4", "CAP-5")
async def test_a_change_of_capacity_is_told(daemon: FakeDaemon, api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api, "/events?types=capacity")
    first = await reader.next("snapshot")
    assert first.data["capacity"]["source"] == "legacy_fallback"
    await _register(api)
    daemon.capacity.read()
    event = await reader.next()
    assert event.kind == "capacity"
    assert (event.data["capacity"], event.data["source"]) == (64, "mixed")


@pytest.mark.req("CAP-4")
async def test_what_a_snapshot_tells_is_not_told_again(
    daemon: FakeDaemon, api: Caller, nursery: trio.Nursery
) -> None:
    id = await _register(api)  # nobody has looked at the capacity since
    reader = await _open(nursery, api, "/events?types=capacity")
    first = await reader.next("snapshot")
    assert first.data["capacity"]["source"] == "mixed"
    daemon.capacity.read()
    (await api.call("POST", f"/workers/{id}/drain")).expect(202)
    daemon.capacity.read()
    event = await reader.next()
    assert event.data["source"] == "legacy_fallback"


@pytest.mark.req("CTL-4")
async def test_a_member_that_changes_is_told(daemon: FakeDaemon, api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api, "/events?types=member")
    await reader.next("snapshot")
    daemon.mesh.members[0](MemberChanged("b", "alive", None))
    daemon.mesh.members[0](MemberChanged("b", "down", "suspect"))
    new = await reader.next()
    assert new.data == {"member": {"name": "b", "state": "alive"}}
    changed = await reader.next()
    assert changed.data == {"member": {"name": "b", "state": "down"}, "previous": "suspect"}


@pytest.mark.req("CTL-4")
async def test_types_that_are_not_asked_for_are_left_out(api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api, "/events?types=removed,member")
    assert (await reader.next()).kind == "snapshot"
    id = await _register(api)
    (await api.call("DELETE", f"/workers/{id}?drain=0")).expect(202)
    assert (await reader.next()).kind == "removed"


@pytest.mark.req("CTL-5")
async def test_an_unknown_type_is_refused(api: Caller) -> None:
    answer = (await api.call("GET", "/events?types=registered,gone")).expect(400).json()
    assert answer["field"] == "types"


@pytest.mark.req("CTL-4", "REG-7")
@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_stream_resumes_after_the_last_event_that_the_client_has(
    api: Caller, nursery: trio.Nursery, by: str
) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    await _register(api, 1)
    last = (await reader.next("registered")).id
    assert last is not None
    reader.disconnect()
    second = await _register(api, 2)
    if by == "header":
        again = await _open(nursery, api, "/events?since=nonsense", {"last-event-id": last})
    else:
        again = await _open(nursery, api, f"/events?since={last}")
    event = await again.next()
    assert (event.kind, event.data["worker"]["id"]) == ("registered", second)


@pytest.mark.req("REG-7")
@pytest.mark.parametrize("last", ["otherlife-1", "nonsense", "-5", "x-99999999999999999999999"])
async def test_an_id_that_is_not_of_this_life_costs_a_resync_and_a_snapshot(
    api: Caller, nursery: trio.Nursery, last: str
) -> None:
    reader = await _open(nursery, api, "/events", {"last-event-id": last})
    assert [(await reader.next()).kind, (await reader.next()).kind] == ["resync", "snapshot"]


@pytest.mark.req("REG-7")
async def test_an_id_from_the_future_of_this_life_is_not_believed(api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api)
    id = (await reader.next("snapshot")).id
    assert id is not None
    ahead = id.rpartition("-")[0] + "-7777"
    again = await _open(nursery, api, "/events", {"last-event-id": ahead})
    assert (await again.next()).kind == "resync"


@pytest.mark.req("REG-7")
async def test_a_client_that_falls_behind_gets_one_resync_and_the_whole_state(
    api: Caller, nursery: trio.Nursery
) -> None:
    reader = await _open(nursery, api, "/events?types=removed")
    await reader.next("snapshot")
    await trio.testing.wait_all_tasks_blocked()
    reader.blocked = trio.Event()
    id = await _register(api)
    log = api.app.state.log
    for _ in range(limits.RING_EVENTS + 1):
        log.append("removed", b"{}")
    reader.blocked.set()
    reader.blocked = None
    # The first write had been on its way when the client stopped reading.
    kinds = [(await reader.next("resync", "snapshot")).kind]
    event = await reader.next("snapshot")
    assert kinds == ["resync"]
    assert [worker["id"] for worker in event.data["workers"]] == [id]
    log.append("removed", b'{"after": 1}')
    assert (await reader.next()).data == {"after": 1}


@pytest.mark.req("REG-7")
async def test_streams_resync_when_the_events_themselves_were_lost(
    daemon: FakeDaemon, api: Caller, nursery: trio.Nursery
) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    api.app.state.log.break_off()
    assert [(await reader.next()).kind, (await reader.next()).kind] == ["resync", "snapshot"]


@pytest.mark.req("CTL-4")
async def test_a_quiet_stream_says_now_and_then_that_it_lives(
    api: Caller, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    started = trio.current_time()
    assert (await reader.raw()).startswith(b":")
    assert trio.current_time() - started == pytest.approx(limits.STREAM_KEEP_ALIVE_S)


@pytest.mark.req("SYN-14")
async def test_streams_end_at_stop_with_all_that_happened(api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    await _register(api)
    api.app.state.log.close()
    assert (await reader.next("registered")).kind == "registered"
    with pytest.raises(EOFError):
        await reader.next()
    assert reader.final_chunk_sent


@pytest.mark.req("SYN-14", "SEC-4")
async def test_a_client_that_does_not_read_is_cut_off_at_stop(
    api: Caller, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    await trio.testing.wait_all_tasks_blocked()
    reader.blocked = trio.Event()
    await _register(api)
    api.app.state.log.close()
    started = trio.current_time()
    with pytest.raises(EOFError):
        await reader.next()
    assert trio.current_time() - started == pytest.approx(limits.STREAM_END_S)


@pytest.mark.req("SEC-4")
async def test_a_client_that_leaves_frees_its_stream(api: Caller, nursery: trio.Nursery) -> None:
    reader = await _open(nursery, api)
    await reader.next("snapshot")
    metrics = api.app.state.metrics
    assert metrics.open_streams == 1
    reader.disconnect()
    with pytest.raises(EOFError):
        await reader.next()
    assert metrics.open_streams == 0


@pytest.mark.req("SEC-4")
async def test_one_stream_too_many_is_refused(api: Caller) -> None:
    api.app.state.metrics.stream(limits.MAX_STREAMS)
    assert (await api.call("GET", "/events")).expect(503).json()["code"] == "UNAVAILABLE"


@pytest.mark.req("SEC-4")
def test_the_ring_is_bounded_in_events_and_in_bytes() -> None:
    log = EventLog("life", max_events=10, max_bytes=10_000)
    for _ in range(100):
        log.append("removed", b"{}")
    assert log.after(89) is None
    assert [event.number for event in log.after(90) or ()] == list(range(91, 101))
    log.append("removed", b"x" * 9_990)
    assert log.after(100) is None or len(log.after(100) or ()) <= 1
    assert log.after(99) is None


@pytest.mark.req("REG-7")
def test_the_ring_gives_what_is_missing_in_bounded_batches() -> None:
    log = EventLog("life")
    for _ in range(1000):
        log.append("removed", b"{}")
    cursor, seen = 0, []
    while batch := log.after(cursor, 256):
        assert len(batch) <= 256
        seen += [event.number for event in batch]
        cursor = batch[-1].number
    assert seen == list(range(1, 1001))
