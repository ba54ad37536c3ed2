"""One connection: a reader that hands frames up, and a writer that asks for the next one when it can send.

Nothing is queued here. The writer sleeps until it is poked, then sends what the node has to say *now*,
until the node has nothing to say. A peer that reads slowly is therefore asked for less often, and gets
the newest state each time.

A connection ends for the first reason that anyone gives; `run` returns it.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from meshd.runtime.limits import (
    CLOSE_DRAIN_S,
    FIRST_FRAME_BYTES,
    FIRST_FRAME_S,
    QUIET_S,
    READ_BYTES,
    SEND_BATCH_BYTES,
    SEND_STALL_S,
)
from meshd.runtime.transport import Link
from meshd.wire.errors import WireError
from meshd.wire.framing import FrameDecoder, encode_frame
from meshd.wire.limits import MAX_FRAME_BYTES
from meshd.wire.messages import Message

_log = structlog.get_logger(__name__)


class Connection:
    """The tasks and the state of one open connection. `number` is the node's name for it."""

    def __init__(
        self,
        number: int,
        link: Link,
        *,
        received: Callable[[int, Message], None],
        undecodable: Callable[[int, str], None],
        next_message: Callable[[int], Message | None],
        may_send: Callable[[], trio.Event | None],
    ) -> None:
        """Callables are synchronous.

        `may_send` gives an event to wait for while sends are on hold, else None.
        """
        self.number = number
        self._stream = link.stream
        self._send_now = link.send_now
        self._unsent = b""
        """What the kernel did not take at once of a batch that was."""
        self._received = received
        self._undecodable = undecodable
        self._next_message = next_message
        self._may_send = may_send
        self._reason: str | None = None
        self._poked = True  # a hello is due
        self._sleeping: trio.Event | None = None
        self._all_sent = trio.Event()
        self._scope = trio.CancelScope()

    def poke(self) -> None:
        """There may be something to send. Sends a little of it at once; may be called at any time."""
        self._poked = True
        if self._sleeping is not None and not self._sleeping.is_set():
            if self._sent_at_once():
                return
            self._sleeping.set()
        if self._all_sent.is_set():
            self._all_sent = trio.Event()

    def _sent_at_once(self) -> bool:
        """Hand a batch to the kernel without waiting for the writer's turn; whether that was all.

        A change is on its way to every peer before whoever made it runs on, which is worth most of a
        millisecond. Only while the writer sleeps, so bytes never overtake each other.
        """
        if self._send_now is None or self.closing or self._may_send() is not None:
            return False
        self._poked = False
        batch = self._take()
        if not batch:
            return not self.closing
        taken = self._send_now(batch)
        if taken < len(batch):
            self._unsent = batch[taken:]
            return False
        self._unsent = self._take()  # most often there is nothing more, and the writer sleeps on
        return not (self._unsent or self.closing)

    async def sent(self) -> None:
        """Wait until all that the node had to say on this connection is with the kernel, or it ended."""
        await self._all_sent.wait()

    def close(self, reason: str) -> None:
        """Deliver nothing more, send what is still to be said, end within CLOSE_DRAIN_S. Returns at once."""
        if self._reason is None:
            self._reason = reason
            self._scope.deadline = trio.current_time() + CLOSE_DRAIN_S
            self.poke()

    @property
    def closing(self) -> bool:
        """Whether there is a reason to end already."""
        return self._reason is not None

    async def run(self) -> str:
        """Read and write until the connection ends, and close the stream; returns the reason."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    self._end("closed by the peer")
        finally:
            self._reason = self._reason or "stopped"
            self._all_sent.set()
            await trio.aclose_forcefully(self._stream)
        return self._reason

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._scope.cancel()

    async def _read(self) -> None:
        """Hand frames up until the peer closes.

        While closing, bytes are read and dropped: a socket that is closed with bytes unread resets the
        connection, and the peer would lose our last frames.
        """
        decoder = FrameDecoder(FIRST_FRAME_BYTES)
        with trio.CancelScope(deadline=trio.current_time() + FIRST_FRAME_S) as patience:
            while data := await self._receive():
                if self.closing:
                    continue
                if self._decode(decoder, data):
                    decoder.max_frame_bytes = MAX_FRAME_BYTES
                    patience.deadline = trio.current_time() + QUIET_S
        if patience.cancelled_caught:
            first = decoder.max_frame_bytes == FIRST_FRAME_BYTES
            self._end(f"no first frame within {FIRST_FRAME_S:g} s" if first else f"silent for {QUIET_S:g} s")

    async def _receive(self) -> bytes | bytearray:
        try:
            return await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end("connection broken")
            return b""

    def _decode(self, decoder: FrameDecoder, data: bytes | bytearray) -> bool:
        """Hand up the frames that are complete with `data`; whether there were any."""
        any_came = False
        try:
            for message in decoder.feed(data):
                any_came = True
                decoder.max_frame_bytes = MAX_FRAME_BYTES
                self._received(self.number, message)
                if self.closing:
                    break
        except WireError as err:
            self._undecodable(self.number, str(err))
            self.close(str(err))
        return any_came

    async def _write(self) -> None:
        """Send what the node has to say whenever it has something."""
        try:
            while True:
                while (hold := self._may_send()) is not None:
                    await hold.wait()
                self._poked = False
                batch, self._unsent = self._unsent, b""
                if batch := batch or self._take():
                    with trio.move_on_after(SEND_STALL_S) as stalled:
                        await self._stream.send_all(batch)
                    if stalled.cancelled_caught:
                        self._end(f"the peer took no bytes for {SEND_STALL_S:g} s")
                elif self.closing:
                    await self._say_goodbye()
                    return
                elif not self._poked:
                    self._all_sent.set()
                    self._sleeping = trio.Event()
                    await self._sleeping.wait()
                    self._sleeping = None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end("connection broken")

    def _take(self) -> bytes:
        """The next frames, computed now, joined up to SEND_BATCH_BYTES."""
        frames: list[bytes] = []
        size = 0
        try:
            while size < SEND_BATCH_BYTES and (message := self._next_message(self.number)) is not None:
                frames.append(encode_frame(message))
                size += len(frames[-1])
        except Exception:
            # What is sent depends on what peers told us: nobody may end the daemon by it.
            _log.exception("bug_in_send", hint="please report this")
            self._end("an error of ours, see the log")
            return b""
        return frames[0] if len(frames) == 1 else b"".join(frames)

    async def _say_goodbye(self) -> None:
        """All is sent. Now the reader finds the end of the peer's stream, or the scope's deadline comes."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:
            self._scope.cancel()
