"""Frames as this version's protocol writes them: a later version proves that it can still read them.

A change here is a change of the protocol, and needs a new protocol version or a field at the end.
"""

from __future__ import annotations

import pytest

from crdt.types import Have, LogHead
from meshd.wire.framing import FrameDecoder, encode_frame
from meshd.wire.messages import (
    Begin,
    Data,
    Heartbeat,
    Hello,
    Leave,
    MemberRow,
    Message,
    Ping,
    Pong,
    Pull,
    Reject,
    VectorRow,
)

_HAVE = Have((2, 3), 4, 1, 5, (6, 7), 8)
_HEAD = LogHead("a", (2, 3), 1, 4, 1, 5, ((1, 9, 3),), None)

GOLDEN: list[tuple[Message, str]] = [
    (
        Hello(
            protocol_min=1,
            protocol_max=1,
            cluster="lab",
            node="a",
            nonce=9,
            address="a:1",
            zone="z1",
            version="0.1.0",
            features=("offers",),
        ),
        "000000209a010101a36c6162a16109a3613a31a27a31a5302e312e3091a66f6666657273",
    ),
    (Reject(code="NAME_CLASH", text="no"), "000000109302aa4e414d455f434c415348a26e6f"),
    (
        Heartbeat(
            hlc=7,
            done=2,
            token=3,
            rows=(VectorRow(owner="a", have=_HAVE),),
            members=(
                MemberRow(
                    name="b", nonce=5, beat=6, left=0, address="b:1", zone="", version="0.1.0", extra=()
                ),
            ),
            peers=("b",),
            digest=11,
        ),
        "0000002898030702039192a1619802030401050607089197a162050600a3623a31a0a5302e312e3091a1620b",
    ),
    (Ping(token=1), "00000003920401"),
    (Pong(token=4294967296), "0000000b9205cf0000000100000000"),
    (Pull(owner="a", have=_HAVE), "0000000d9306a161980203040105060708"),
    (
        Begin(number=1, head=_HEAD, start=0, full=True, offer=False, silence_s=60),
        "0000001697070199a1610203010401059193010903c000c3c23c",
    ),
    (
        Data(
            number=1,
            last=True,
            entries=(("worker:x", 2, None, 3, b"v", None), ("worker:y", 4, (1, 9, 3), 5, None, None)),
        ),
        "00000028940801c39296a8776f726b65723a7802c003c40176c096a8776f726b65723a79049301090305c0c0",
    ),
    (Leave(withdrawn=True), "000000039209c3"),
]


@pytest.mark.req("MSH-6")
@pytest.mark.parametrize(("message", "frame"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_frame_reads_and_writes_as_it_always_did(message: Message, frame: str) -> None:
    assert encode_frame(message).hex() == frame
    assert list(FrameDecoder().feed(bytes.fromhex(frame))) == [message]


def test_every_kind_of_message_has_a_golden_frame() -> None:
    kinds = {type(message) for message, _ in GOLDEN}
    assert kinds == {Hello, Reject, Heartbeat, Ping, Pong, Pull, Begin, Data, Leave}
