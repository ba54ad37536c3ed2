"""Frames: a 4-byte big-endian length, then that many bytes of message body."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.wire.codec import decode, encode
from meshd.wire.errors import WireError
from meshd.wire.limits import MAX_FRAME_BYTES
from meshd.wire.messages import Message

_PREFIX_BYTES = 4


def encode_frame(message: Message) -> bytes:
    """A message as it goes over the wire."""
    body = encode(message)
    return len(body).to_bytes(_PREFIX_BYTES, "big") + body


class FrameDecoder:
    """Cuts a byte stream into messages. After a WireError the stream is lost: close the connection.

    Holds at most one incomplete frame, which is at most `max_frame_bytes` long.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self.max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes | bytearray) -> Iterator[Message]:
        """Add received bytes; yields the messages that are complete with them.

        Raises WireError at a frame over the limit (from its first four bytes on) or one that is no message.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _PREFIX_BYTES:
                size = int.from_bytes(buffer[start : start + _PREFIX_BYTES], "big")
                if size > self.max_frame_bytes:
                    raise WireError(f"a frame of {size} bytes, over the limit of {self.max_frame_bytes}")
                end = start + _PREFIX_BYTES + size
                if len(buffer) < end:
                    break
                body = bytes(buffer[start + _PREFIX_BYTES : end])
                start = end
                yield decode(body)
        finally:
            del buffer[:start]
