from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from meshd.cli.sse import SseEvent, parse_events
from tests.cli.conftest import FakeClock, Meshctl
from tests.support.fake_api import Answer, FakeApi, Request

WORKER = {"id": "1f3a", "url": "http://x:1", "status": "ready", "owner": "b", "origin": "mesh"}


def sse(event: str, data: Any, event_id: str | None = None) -> bytes:
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def lives(*lifetimes: list[bytes] | None) -> Callable[[Request], Answer]:
    """A daemon that streams each of these in turn and restarts in between; `None` refuses the connection."""
    left = list(lifetimes)

    def answer(_request: Request) -> Answer:
        chunks = left.pop(0)
        return Answer(cut=True) if chunks is None else Answer(stream=chunks)

    return answer


# --- the parser ------------------------------------------------------------------------------


def parsed(text: bytes) -> list[SseEvent]:
    return list(parse_events(text.splitlines(keepends=True)))


def test_events_are_read_as_the_standard_says() -> None:
    text = b": hello\nid: 7\nevent: member\ndata: {\ndata:  }\n\ndata: plain\n\n"
    assert parsed(text) == [SseEvent("7", "member", "{\n }"), SseEvent("7", "message", "plain")]


def test_an_event_that_is_cut_off_is_not_handed_over() -> None:
    assert parsed(b"id: 1\nevent: a\ndata: 1\n\nid: 2\nevent: b\ndata: 2\n") == [SseEvent("1", "a", "1")]


def test_comments_and_empty_events_are_no_events() -> None:
    assert parsed(b": keep-alive\n\n\nevent: a\n\nretry: 5\n\n") == []


def test_line_ends_may_be_of_either_kind() -> None:
    assert parsed(b"id: 1\r\ndata: x\r\n\r\n") == [SseEvent("1", "message", "x")]


# --- the command -----------------------------------------------------------------------------


@pytest.mark.req("CTL-3")
def test_each_event_is_one_line_for_people(daemon: FakeApi, meshctl: Meshctl) -> None:
    stream = [
        sse("snapshot", {"workers": [WORKER, WORKER], "members": [{}], "capacity": {}}, "1"),
        sse("status_changed", {"worker": {**WORKER, "status": "not_ready", "last_error": "refused"},
                               "previous": "ready"}, "2"),
        sse("registered", {"worker": WORKER}, "3"),
        sse("origin_changed", {"worker": {**WORKER, "origin": "local"}, "previous": "mesh"}, "4"),
        sse("capacity", {"capacity": 64, "source": "mixed", "workers_available": 1}, "5"),
        sse("member", {"member": {"name": "b", "state": "down"}, "previous": "suspect"}, "6"),
        sse("resync", {"reason": "events were missed"}, "7"),
        sse("novel", {"n": 1}, "8"),
    ]  # fmt: skip
    daemon.on("GET", "/events", lives(stream))
    done = meshctl("watch", "--count", "8")
    assert done.exit_code == 0, done.output
    lines = [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in done.stdout.splitlines()]
    assert lines == [
        "snapshot        2 workers, 1 member",
        "status_changed  http://x:1  not_ready (was ready)  owner b  refused",
        "registered      http://x:1  ready  owner b",
        "origin_changed  http://x:1  ready (was mesh)  owner b",
        "capacity        64  mixed  1 workers",
        "member          b  down (was suspect)",
        "resync          events were missed; what follows is the whole state",
        'novel           {"n": 1}',
    ]


@pytest.mark.req("CTL-1")
def test_with_json_each_event_is_one_object_a_line(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/events", lives([sse("registered", {"worker": WORKER}, "3")]))
    done = meshctl("watch", "--count", "1", "-o", "json")
    assert json.loads(done.stdout) == {"id": "3", "event": "registered", "data": {"worker": WORKER}}
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.req("CTL-4")
def test_after_a_restart_it_resumes_behind_the_last_event(
    daemon: FakeApi, meshctl: Meshctl, clock: FakeClock
) -> None:
    first = [sse("registered", {"worker": WORKER}, "7"), b"id: 8\nevent: removed\ndata: {"]
    daemon.on("GET", "/events", lives(first, None, None, [sse("removed", {"worker": WORKER}, "8")]))
    done = meshctl("watch", "--count", "2")
    assert done.exit_code == 0, done.output
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["registered", "removed"]
    asked = daemon.asked("GET", "/events")
    assert [one.headers.get("last-event-id") for one in asked] == [None, "7", "7", "7"]
    assert clock.slept == sorted(clock.slept)
    assert done.stderr.count("connecting again") == 1
    assert done.stderr.count("connected again") == 1


@pytest.mark.req("CTL-6")
def test_a_daemon_that_is_not_there_at_first_is_unreachable(meshctl: Meshctl) -> None:
    assert meshctl("watch", "--addr", "127.0.0.1:1", aimed=False).exit_code == 3


def test_a_refusal_ends_it_and_is_not_retried(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on(
        "GET", "/events", Answer({"error": "there are no events of type x", "code": "BAD_REQUEST"}, 400)
    )
    done = meshctl("watch", "--types", "x")
    assert done.exit_code == 2
    assert len(daemon.requests) == 1
    assert daemon.requests[0].query == {"types": ["x"]}


def test_it_ends_with_the_stream_when_it_is_not_to_reconnect(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/events", lives([sse("snapshot", {}, "1"), sse("registered", {"worker": WORKER}, "2")]))
    done = meshctl("watch", "--no-reconnect", "--no-snapshot")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1


def test_since_is_sent_as_a_parameter(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/events", lives([]))
    meshctl("watch", "--since", "abc-4", "--no-reconnect")
    assert daemon.requests[0].query == {"since": ["abc-4"]}
