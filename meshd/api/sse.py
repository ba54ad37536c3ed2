"""Server-Sent Events: one stream of the daemon's events to one client.

Rules: a stream starts with a snapshot, or with what was missed since the event id that the client names; an
event is written as soon as it happens, in one write, and in the same step where the server offers `SEND_NOW`;
a client that falls behind the ring gets `resync` and a snapshot; the stream ends cleanly at stop. The watcher
for the client's disconnect is ended before the last chunk is sent, so that the connection goes on to its idle
time-out like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from starlette.responses import Response

from meshd.api import limits
from meshd.api.eventlog import EventLog, LoggedEvent, frame_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from meshd.api.codec import Write

Snapshot = Callable[["Write"], Awaitable[None]]
"""Writes the JSON of a snapshot, in pieces. It fixes what it covers before it writes for the first time."""

SEND_NOW = "meshd.send_now"
"""In a request's scope: sends a piece of the answer's body without waiting; false, having done nothing, if it
cannot.
"""

_KEEP_ALIVE = b": keep-alive\n\n"
_MISSED = b'{"reason":"events were missed; the snapshot that follows is complete"}'


class EventStream(Response):
    """The answer to `GET /events`.

    `kinds` limits which events are sent (None: all); `cursor` is the number of the last event the client has,
    or None for a fresh start; `lost` tells that the client named an event that cannot be resumed from.
    `opened` is called with +1 when the stream starts and -1 when it ends, however that happens.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        log: EventLog,
        snapshot: Snapshot,
        *,
        kinds: frozenset[str] | None,
        cursor: int | None,
        lost: bool,
        opened: Callable[[int], None],
    ) -> None:
        self._log = log
        self._snapshot = snapshot
        self._kinds = kinds
        self._cursor = cursor
        self._lost = lost
        self._opened = opened
        self._send_now: Callable[[bytes], bool] | None = None
        self.status_code = 200
        self.background = None
        # Buffering proxies would hold events back.
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves or the daemon stops."""
        self._opened(1)
        try:
            await self._run(scope, receive, send)
        finally:
            self._opened(-1)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(chunk: bytes) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._send_now = scope.get(SEND_NOW)
        finished = scope["method"] == "HEAD"
        if not finished:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_disconnect, receive, nursery.cancel_scope)
                nursery.start_soon(self._cut_at_stop, nursery.cancel_scope)
                await self._stream(write)
                finished = True
                nursery.cancel_scope.cancel()
        if finished:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, write: Write) -> None:
        """Write until the log is closed."""
        log = self._log
        at_once = None if self._send_now is None else self._send_at_once
        if self._cursor is not None:
            await write(b": resumed\n\n")  # the client learns at once that its stream is open
        while True:
            batch = None if self._cursor is None else log.after(self._cursor)
            if batch is None:
                if self._cursor is not None or self._lost:
                    self._lost = False
                    await write(frame_of("resync", log.event_id(log.newest), _MISSED))
                log.settle()
                self._cursor = log.newest
                await write(b"event: snapshot\nid: %b\ndata: " % log.event_id(self._cursor).encode())
                await self._snapshot(write)
                await write(b"\n\n")
            elif batch:
                self._cursor = batch[-1].number
                for frames in self._joined(batch):
                    await write(frames)
            elif log.closed:
                return
            else:
                with trio.move_on_after(limits.STREAM_KEEP_ALIVE_S) as quiet:
                    await log.wait(at_once)
                if quiet.cancelled_caught:
                    await write(_KEEP_ALIVE)

    def _send_at_once(self) -> bool:
        """Send what is new if it is little and nothing is in the way; returns whether that was done."""
        assert self._cursor is not None
        assert self._send_now is not None
        batch = self._log.after(self._cursor)
        if not batch:
            return False
        pieces = self._joined(batch)
        if len(pieces) > 1 or (pieces and not self._send_now(pieces[0])):
            return False
        self._cursor = batch[-1].number
        return True

    def _joined(self, batch: list[LoggedEvent]) -> list[bytes]:
        """Return the frames that this client asked for, joined into pieces of one write each."""
        pieces: list[bytes] = []
        frames: list[bytes] = []
        size = 0
        for event in batch:
            if self._kinds is not None and event.kind not in self._kinds and event.kind != "resync":
                continue
            frames.append(event.frame)
            size += len(event.frame)
            if size >= limits.STREAM_WRITE_BYTES:
                pieces.append(b"".join(frames))
                frames, size = [], 0
        if frames:
            pieces.append(b"".join(frames))
        return pieces

    async def _cut_at_stop(self, scope: trio.CancelScope) -> None:
        """Once the log is closed, bound the time that a client may take for what is left."""
        await self._log.closing.wait()
        scope.deadline = trio.current_time() + limits.STREAM_END_S


async def _watch_disconnect(receive: Receive, scope: trio.CancelScope) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            scope.cancel()
            return
