"""Messages to bytes and back, and what becomes of bytes that no correct peer sends."""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]  # ships no annotations
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt.types import COUNTER_LIMIT, Entry, Have, LogHead
from meshd.wire import limits
from meshd.wire.codec import decode, encode
from meshd.wire.errors import WireError
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
    Unknown,
    VectorRow,
)

text = st.text(max_size=12).filter(lambda t: not any(0xD800 <= ord(c) < 0xE000 for c in t))
name = text.filter(bool)
unsigned = st.integers(0, limits.MAX_INT)
signed = st.integers(0, limits.MAX_SIGNED)
counter = st.integers(0, COUNTER_LIMIT - 1)
gen = st.tuples(counter, signed)


@st.composite
def haves(draw: st.DrawFn) -> Have:
    top = draw(signed)
    return Have(draw(gen), top, draw(st.integers(0, top)), draw(unsigned), draw(gen), draw(counter))


@st.composite
def heads(draw: st.DrawFn) -> LogHead:
    top = draw(signed)
    lineage = draw(st.lists(st.tuples(counter, signed, signed), max_size=3))
    signature = draw(st.one_of(st.none(), st.binary(max_size=8)))
    floor = draw(st.integers(0, top))
    return LogHead(draw(name), draw(gen), draw(signed), top, floor, draw(unsigned), tuple(lineage), signature)


entries: st.SearchStrategy[Entry] = st.tuples(
    name,
    st.integers(1, limits.MAX_SIGNED),
    st.one_of(st.none(), st.tuples(counter, signed, signed)),
    signed,
    st.one_of(st.none(), st.binary(max_size=12)),
    st.one_of(st.none(), st.binary(max_size=8)),
)
members = st.builds(
    MemberRow,
    *(name, signed, signed, st.integers(0, 255), text, text, text),
    st.lists(st.one_of(st.none(), text, signed), max_size=2).map(tuple),
)
heartbeats = st.builds(
    Heartbeat,
    hlc=signed,
    done=unsigned,
    token=unsigned,
    rows=st.lists(st.builds(VectorRow, name, haves()), max_size=3).map(tuple),
    members=st.lists(members, max_size=3).map(tuple),
    peers=st.one_of(st.none(), st.lists(name, max_size=3).map(tuple)),
    digest=unsigned,
)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        *(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)),
        *(name, name, signed, text, text, text),
        st.lists(text, max_size=3).map(tuple),
    ),
    st.builds(Reject, text, text),
    heartbeats,
    st.builds(Ping, unsigned),
    st.builds(Pong, unsigned),
    st.builds(Pull, name, haves()),
    st.builds(Begin, unsigned, heads(), signed, st.booleans(), st.booleans(), signed),
    st.builds(Data, unsigned, st.booleans(), st.lists(entries, max_size=4).map(tuple)),
    st.builds(Leave, st.booleans()),
)


@given(messages)
def test_every_message_comes_back_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.req("SEC-4")
@settings(max_examples=300)
@given(messages, st.data())
def test_a_damaged_frame_is_another_message_or_a_wire_error_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    body = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
        if kind == "cut":
            del body[at:]
        elif kind == "insert":
            body[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif body:
            body[at : at + 1] = b"" if kind == "drop" else bytes([body[at] ^ data.draw(st.integers(1, 255))])
    try:
        decoded = decode(bytes(body))
    except WireError:
        return
    if not isinstance(decoded, Unknown):
        encode(decoded)


@pytest.mark.req("SEC-4")
@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\xc1")
@example(b"\x91" * 5000)
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x92\x05\xd7\xff" + b"\xff" * 8)
@example(b"\x81\x92\x01\x02\x03")
@example(b"\xa1\xff")
def test_any_bytes_are_a_message_or_a_wire_error(body: bytes) -> None:
    try:
        decode(body)
    except WireError:
        pass  # the only way to refuse


# -- limits -----------------------------------------------------------------------------------------

HAVE = (1, 2, 5, 0, 9, 1, 2, 0)
HEAD = ("a", 1, 2, 0, 5, 0, 9, ((1, 1, 1),), None)
ENTRY = ("worker:1", 1, None, 0, b"", None)


def refused(*parts: object) -> bool:
    try:
        decode(msgpack.packb(parts))
    except WireError:
        return True
    return False


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(
    "parts",
    [
        (),
        ("1",),
        (-1,),
        (True,),
        (2**16,),
        (4,),
        (4, -1),
        (4, 2**64 - 1.0),
        (4, None),
        (6, "", HAVE),
        (6, "a" * 256, HAVE),
        (6, "a", HAVE[:7]),
        (6, "a", (COUNTER_LIMIT, *HAVE[1:])),
        (6, "a", (1, 2**63, *HAVE[2:])),
        (6, "a", (1, 2, 5, 6, *HAVE[4:])),
        (7, 1, HEAD, 0, True, False),
        (7, 1, HEAD, 0, 1, False, 0),
        (7, 1, (*HEAD[:7], ((1, 1),), None), 0, True, False, 0),
        (7, 1, (*HEAD[:7], ((1, 1, 1),) * 4097, None), 0, True, False, 0),
        (7, 1, (*HEAD[:8], "text"), 0, True, False, 0),
        (7, 1, ("a", 1, 2, 0, 5, 6, *HEAD[6:]), 0, True, False, 0),
        (8, 1, False, (ENTRY,) * (limits.MAX_PAGE_ENTRIES + 1)),
        (8, 1, False, (ENTRY[:5],)),
        (8, 1, False, ((*ENTRY, 7),)),
        (8, 1, False, (("", *ENTRY[1:]),)),
        (8, 1, False, (("k" * 4097, *ENTRY[1:]),)),
        (8, 1, False, (("k", 0, *ENTRY[2:]),)),
        (8, 1, False, (("k", 1, (1, 2), *ENTRY[3:]),)),
        (8, 1, False, (("k", 1, None, -1, b"", None),)),
        (8, 1, False, (("k", 1, None, 0, "text", None),)),
        (8, 1, False, (("k", 1, None, 0, bytes(limits.MAX_VALUE_BYTES + 1), None),)),
        (8, 1, False, (("k", 1, None, 0, b"", bytes(2000)),)),
        (8, 1, False, {"k": 1}),
        (9, None),
        (2, "CODE"),
        (2, "CODE", "x" * 2000),
    ],
)
def test_a_message_out_of_bounds_is_refused(parts: tuple[object, ...]) -> None:
    assert refused(*parts)


def test_what_a_newer_version_appends_is_ignored_or_kept() -> None:
    assert decode(msgpack.packb((4, 7, "more", {"x": 1}))) == Ping(7)
    assert decode(msgpack.packb((999, "anything"))) == Unknown(999)
    row = ("b", 1, 2, 0, "b:1", "", "", "newer", 5)
    beat = decode(msgpack.packb((3, 0, 0, 0, (), (row,), None, 0, "newer")))
    assert isinstance(beat, Heartbeat)
    assert beat.members[0].extra == ("newer", 5)
    assert decode(encode(beat)) == beat


# -- frames -----------------------------------------------------------------------------------------


@given(st.lists(messages, max_size=5), st.data())
def test_frames_come_out_whole_however_the_stream_is_cut(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(message) for message in sent)
    decoder = FrameDecoder()
    received: list[Message] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += decoder.feed(stream[:size])
        stream = stream[size:]
    assert received == sent


@pytest.mark.req("SEC-4")
def test_a_frame_over_the_limit_is_refused_from_its_first_four_bytes_on() -> None:
    decoder = FrameDecoder(max_frame_bytes=10)
    with pytest.raises(WireError):
        list(decoder.feed((11).to_bytes(4, "big")))
    assert list(FrameDecoder(10).feed((10).to_bytes(4, "big"))) == []


def test_the_frames_before_a_bad_one_are_received() -> None:
    received: list[Message] = []
    stream = encode_frame(Ping(1)) + encode_frame(Pong(2)) + b"\0\0\0\1\xc1"
    decoding = FrameDecoder().feed(stream)
    received += [next(decoding), next(decoding)]
    with pytest.raises(WireError):
        next(decoding)
    assert received == [Ping(1), Pong(2)]
