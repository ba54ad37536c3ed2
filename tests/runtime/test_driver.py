"""The driver on a memory network and virtual time, under a node that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog.testing
import trio
import trio.testing

from crdt.persist import PutMeta
from meshd.protocol.effects import CloseConnection, KeysChanged, MemberChanged, Notice, Persist
from meshd.runtime import DirectPersister, Driver
from meshd.runtime.limits import (
    CLOSE_DRAIN_S,
    CONNECTIONS_PER_LOOPBACK,
    DIAL_TIMEOUT_S,
    FIRST_FRAME_S,
    NOTICE_REPEAT_S,
    QUIET_S,
    SEND_STALL_S,
)
from meshd.runtime.memory import MemoryNetwork, MemoryTransport
from meshd.runtime.transport import Bound, Link
from meshd.storage import MemoryStorage
from meshd.wire.framing import FrameDecoder, encode_frame
from meshd.wire.messages import Message, Ping, Pong, Reject, Unknown
from tests.support.fake_node import FakeNode

HOME = "10.0.0.1:7390"


class Bench:
    """One driver listening at HOME, its node, and the network around them."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.node = FakeNode()
        self.storage = MemoryStorage()
        self.persister = DirectPersister(self.storage)
        self.driver = Driver(self.node, MemoryTransport(self.network), self.persister)

    def dial_in(self) -> trio.abc.Stream:
        return self.network.open_link(HOME)

    def say(self, conn: int, *messages: Message) -> None:
        self.node.say(conn, *messages)
        self.driver.dispatch()


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        assert await nursery.start(bench.driver.run, HOME) == HOME
        yield bench
        nursery.cancel_scope.cancel()


async def read_message(stream: trio.abc.Stream) -> Message:
    decoder = FrameDecoder()
    while data := await stream.receive_some(1):
        for message in decoder.feed(data):
            return message
    raise AssertionError("the stream ended before a message was complete")


async def read_to_end(stream: trio.abc.Stream) -> list[Message]:
    decoder, messages = FrameDecoder(), list[Message]()
    while data := await stream.receive_some(65536):
        messages += decoder.feed(data)
    return messages


async def test_frames_reach_the_node_in_order_however_they_are_cut(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        conn, dialled, _ = await bench.node.wait_for("connection_opened")
        assert dialled is None
        for byte in encode_frame(Ping(1)):
            await stream.send_all(bytes([byte]))
        await stream.send_all(encode_frame(Ping(2)) + encode_frame(Ping(3)) + encode_frame(Ping(4))[:3])
        await bench.node.wait_for("receive", 3)
        assert bench.node.named("receive") == [(conn, Ping(1)), (conn, Ping(2)), (conn, Ping(3))]


async def test_a_poke_sends_what_the_node_has_to_say_at_that_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        await bench.node.wait_for("connection_opened")
        await trio.testing.wait_all_tasks_blocked()
        bench.say(1, Ping(1))
        bench.node.outgoing[1].clear()
        bench.say(1, Pong(2))
        assert await read_message(stream) == Pong(2)


async def test_a_wanted_connection_is_dialled_and_a_failed_one_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        bench.network.open_listener("10.0.0.2:1")
        bench.node.dial("10.0.0.2:1")
        bench.node.dial("10.0.0.3:1")
        bench.driver.dispatch()
        assert (await bench.node.wait_for("connection_opened"))[1] == "10.0.0.2:1"
        assert (await bench.node.wait_for("dial_failed"))[0] == "10.0.0.3:1"


class DeafTransport(MemoryTransport):
    async def connect(self, address: str) -> Link:
        await trio.sleep_forever()


async def test_a_dial_without_an_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    node = FakeNode()
    driver = Driver(node, DeafTransport(MemoryNetwork()), DirectPersister(MemoryStorage()))
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run, HOME)
        started = trio.current_time()
        node.dial("10.0.0.9:1")
        driver.dispatch()
        _, reason = await node.wait_for("dial_failed")
        assert trio.current_time() - started == pytest.approx(DIAL_TIMEOUT_S)
        assert "no answer" in str(reason)
        nursery.cancel_scope.cancel()


async def test_both_ends_learn_that_a_connection_closed_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        await bench.node.wait_for("connection_opened")
        await stream.aclose()
        assert await bench.node.wait_for("connection_closed") == (1, "closed by the peer")
        assert bench.driver.connections == 0
        assert len(bench.node.named("connection_closed")) == 1


@pytest.mark.req("SEC-4")
async def test_a_stranger_who_sends_no_whole_frame_is_cut_off_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        started = trio.current_time()
        stream = bench.dial_in()
        await stream.send_all(encode_frame(Ping(1))[:-1])
        _, reason = await bench.node.wait_for("connection_closed")
        assert trio.current_time() - started == pytest.approx(FIRST_FRAME_S)
        assert "no first frame" in str(reason)


@pytest.mark.req("SEC-4")
async def test_a_peer_that_falls_silent_for_long_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        for number in range(3):
            await stream.send_all(encode_frame(Ping(number)))
            await trio.sleep(QUIET_S * 0.9)
        assert not bench.node.named("connection_closed")
        _, reason = await bench.node.wait_for("connection_closed")
        assert "silent" in str(reason)


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\1\xc1", b"\xff\xff\xff\xff", b"\0\1\0\1" + b"x" * 70_000],
    ids=["http", "not msgpack", "huge length", "over a stranger's limit"],
)
async def test_garbage_costs_its_sender_the_connection_and_nobody_else(
    autojump_clock: trio.testing.MockClock, garbage: bytes
) -> None:
    async with running() as bench:
        good, bad = bench.dial_in(), bench.dial_in()
        await bench.node.wait_for("connection_opened", 2)
        await bad.send_all(garbage)
        conn, _ = await bench.node.wait_for("garbage")
        assert await bad.receive_some(1) == b""
        await bad.aclose()
        assert (await bench.node.wait_for("connection_closed"))[0] == conn
        await good.send_all(encode_frame(Ping(7)))
        assert (await bench.node.wait_for("receive"))[1] == Ping(7)
        assert len(bench.node.named("garbage")) == 1


@pytest.mark.req("MSH-6")
async def test_the_last_frames_are_sent_before_a_connection_is_closed_and_nothing_more_is_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        await bench.node.wait_for("connection_opened")
        bench.node.say(1, Reject("cluster", "another cluster"))
        bench.node.effects.append(CloseConnection(1, "refused"))
        bench.driver.dispatch()
        await stream.send_all(encode_frame(Ping(1)))
        assert await read_to_end(stream) == [Reject("cluster", "another cluster")]
        await stream.aclose()
        assert await bench.node.wait_for("connection_closed") == (1, "refused")
        assert not bench.node.named("receive")


async def test_a_peer_that_does_not_close_after_a_farewell_is_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        await bench.node.wait_for("connection_opened")
        started = trio.current_time()
        bench.node.effects.append(CloseConnection(1, "refused"))
        bench.driver.dispatch()
        assert await bench.node.wait_for("connection_closed") == (1, "refused")
        assert trio.current_time() - started == pytest.approx(CLOSE_DRAIN_S)
        await stream.aclose()


class StalledStream(trio.abc.Stream):
    """Sends one frame, and takes bytes only while `open` is set: a peer that stopped reading."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.sent = b""
        self.greeting = encode_frame(Ping(0))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.open.wait()
        self.sent += bytes(data)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self.greeting:
            await trio.lowlevel.checkpoint()
            greeting, self.greeting = self.greeting, b""
            return greeting
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class StallingTransport(MemoryTransport):
    def __init__(self, stream: StalledStream) -> None:
        super().__init__(MemoryNetwork())
        self.stream = stream

    async def connect(self, address: str) -> Link:
        await trio.lowlevel.checkpoint()
        return Link(self.stream, address)


@pytest.mark.req("MSH-3")
async def test_a_slow_peer_is_sent_the_newest_state_and_a_stalled_one_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node, stream = FakeNode(), StalledStream()
    driver = Driver(node, StallingTransport(stream), DirectPersister(MemoryStorage()))
    async with trio.open_nursery() as nursery:
        await nursery.start(driver.run, HOME)
        node.dial("10.0.0.9:1")
        driver.dispatch()
        await node.wait_for("connection_opened")
        node.say(1, Ping(1))
        driver.dispatch()
        await trio.sleep(1)
        for number in range(2, 1000):
            # What the node would say changes while the peer does not read; nobody keeps the old words.
            node.outgoing[1].clear()
            node.say(1, Ping(number))
            driver.dispatch()
        stream.open.set()
        await trio.testing.wait_all_tasks_blocked()
        assert list(FrameDecoder().feed(stream.sent)) == [Ping(1), Ping(999)]
        stream.open = trio.Event()
        node.say(1, Pong(1))
        driver.dispatch()
        started = trio.current_time()
        _, reason = await node.wait_for("connection_closed")
        assert trio.current_time() - started == pytest.approx(SEND_STALL_S)
        assert "took no bytes" in str(reason)
        nursery.cancel_scope.cancel()


async def test_the_node_is_ticked_at_its_deadline_also_when_that_comes_nearer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        start = trio.current_time()
        bench.node.deadline = start + 100
        bench.driver.dispatch()
        await trio.sleep(1)
        bench.node.deadline = start + 5
        bench.driver.dispatch()
        await trio.sleep(50)
        assert [tick - start for tick in bench.node.ticks] == pytest.approx([5.0])


@pytest.mark.req("MSH-3")
async def test_own_writes_without_effects_do_not_have_the_deadline_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        bench.node.deadline = trio.current_time() + 100
        bench.driver.dispatch()
        await trio.sleep(1)
        bench.node.next_deadline = lambda: pytest.fail("the deadline was read")  # type: ignore[method-assign]
        bench.driver.dispatch_writes()
        await trio.sleep(1)


async def test_a_deadline_that_never_moves_does_not_stop_everything_else(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        bench.node.deadline = trio.current_time() - 1

        def stubborn() -> None:
            bench.node.deadline = trio.current_time() - 1

        bench.node.on_tick = stubborn
        bench.driver.dispatch()
        await trio.sleep(0.1)
        assert 10 <= len(bench.node.ticks) <= 101


async def test_effects_are_performed_at_once_and_in_order_also_those_caused_by_callbacks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        seen: list[object] = []

        def on_keys(keys: tuple[str, ...]) -> None:
            seen.append(keys)
            if keys == ("first",):
                bench.node.effects.append(KeysChanged(("caused",)))
                bench.driver.dispatch()
                seen.append("callback ends")

        bench.driver.keys_changed.append(on_keys)
        bench.driver.member_changed.append(seen.append)
        change = MemberChanged("b", "alive", None)
        bench.node.effects += [
            KeysChanged(("first",)),
            Persist((PutMeta("hlc", b"1"),)),
            change,
            KeysChanged(("last",)),
        ]
        bench.driver.dispatch()
        assert seen == [("first",), "callback ends", change, ("last",), ("caused",)]
        bench.storage.close()
        assert MemoryStorage(bench.storage.disk).load().meta == {"hlc": b"1"}


@pytest.mark.req("CRD-4")
async def test_nothing_is_sent_while_a_new_generation_is_not_yet_on_the_disk(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        stream = bench.dial_in()
        await bench.node.wait_for("connection_opened")
        await stream.send_all(encode_frame(Ping(0)))
        await bench.node.wait_for("receive")
        bench.storage.disk.fail_writes = "full"
        bench.node.effects.append(Persist((PutMeta("gen_counter", b"9"),), durable=True))
        bench.say(1, Ping(1))
        with trio.move_on_after(30) as waited:
            await read_message(stream)
        assert waited.cancelled_caught
        bench.storage.disk.fail_writes = None
        assert await read_message(stream) == Ping(1)
        assert bench.storage.disk.unforced == 0
        bench.storage.close()
        assert MemoryStorage(bench.storage.disk).load().meta == {"gen_counter": b"9"}


@pytest.mark.req("SEC-4")
async def test_one_address_cannot_take_all_places(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CONNECTIONS_PER_LOOPBACK > 3
    monkeypatch.setattr("meshd.runtime.doorkeeper.CONNECTIONS_PER_LOOPBACK", 3)
    async with running() as bench:
        with structlog.testing.capture_logs() as lines:
            streams = [bench.dial_in() for _ in range(6)]
            await bench.node.wait_for("connection_opened", 3)
            for stream in streams[3:]:
                assert await stream.receive_some(1) == b""
        assert [line["event"] for line in lines] == ["connection_refused"]
        await streams[0].aclose()
        await bench.node.wait_for("connection_closed")
        bench.dial_in()
        await bench.node.wait_for("connection_opened", 4)


@pytest.mark.req("SEC-4")
async def test_complaints_about_one_address_are_logged_once_in_a_while_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        with structlog.testing.capture_logs() as lines:
            for port in range(1, 51):
                bench.node.effects.append(Notice("warning", "garbage", {"remote": f"10.9.9.9:{port}"}))
            bench.node.effects.append(Notice("warning", "garbage", {"remote": "[2001:db8::1]:5"}))
            bench.node.effects.append(Notice("info", "joined", {"node": "b"}))
            bench.driver.dispatch()
            await trio.sleep(NOTICE_REPEAT_S + 1)
            bench.node.effects.append(Notice("warning", "garbage", {"remote": "10.9.9.9:60"}))
            bench.driver.dispatch()
        assert [(line["event"], line.get("remote"), line.get("suppressed")) for line in lines] == [
            ("garbage", "10.9.9.9:1", None),
            ("garbage", "[2001:db8::1]:5", None),
            ("joined", None, None),
            ("garbage", "10.9.9.9:60", 49),
        ]


async def test_a_bug_set_off_by_a_peers_message_costs_that_peer_its_connection_and_is_logged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:

        def stumble(conn: int, message: Message) -> None:
            if message == Ping(13):
                raise RuntimeError("cannot count to thirteen")

        bench.node.on_receive = stumble
        good, bad = bench.dial_in(), bench.dial_in()
        with structlog.testing.capture_logs() as lines:
            await bad.send_all(encode_frame(Ping(13)))
            assert await bad.receive_some(1) == b""
        assert [line["event"] for line in lines] == ["bug_in_receive"]
        await good.send_all(encode_frame(Ping(1)))
        await bench.node.wait_for("receive", 2)


async def test_a_bug_in_what_is_sent_costs_that_connection_and_is_logged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as bench:
        bench.dial_in()
        await bench.node.wait_for("connection_opened")
        with structlog.testing.capture_logs() as lines:
            bench.say(1, Unknown(7))  # a message that cannot be encoded
            assert await bench.node.wait_for("connection_closed") == (1, "an error of ours, see the log")
        assert [line["event"] for line in lines] == ["bug_in_send"]
        bench.dial_in()
        await bench.node.wait_for("connection_opened", 2)


class NoListening(MemoryTransport):
    async def listen(self, address: str) -> Bound:
        await trio.lowlevel.checkpoint()
        raise OSError(98, "Address already in use")


async def test_an_address_that_cannot_be_listened_on_is_told_to_the_starter() -> None:
    driver = Driver(FakeNode(), NoListening(MemoryNetwork()), DirectPersister(MemoryStorage()))
    async with trio.open_nursery() as nursery:
        with pytest.raises(OSError, match="in use"):
            await nursery.start(driver.run, HOME)
