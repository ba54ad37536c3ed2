"""The worker record: bytes, ids, ownership, and bytes that are no record."""

from __future__ import annotations

import random
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.prefixes import Claim as Ownership
from meshd.workers.model import parse_spec, spec_to_plain
from meshd.workers.record import (
    RecordError,
    WorkerRecord,
    classify,
    decode_record,
    encode_record,
    worker_id,
    worker_key,
)

URL = "http://10.0.0.1:8000"
BODY = {
    "url": URL,
    "models": [{"id": "m", "x": 1}],
    "labels": {"b": "2", "a": "1"},
    "api_key": "sk-1",
    "new": {"z": 1},
}


def record(**changes: object) -> WorkerRecord:
    fields: dict[str, object] = {"spec": parse_spec(BODY), "status": "ready", "owner": "a", "revision": 3}
    return WorkerRecord(**{**fields, **changes})  # type: ignore[arg-type]  # tests name real fields


@pytest.mark.req("SYN-2")
def test_ids_depend_on_node_and_url_alone() -> None:
    assert worker_id("a", URL) == worker_id("a", URL)
    assert len({worker_id("a", URL), worker_id("b", URL), worker_id("a", URL + "/v1")}) == 3
    assert worker_key("a", URL) == "worker:" + worker_id("a", URL)


@pytest.mark.req("SYN-2")
def test_ids_never_change_between_versions() -> None:
    assert worker_id("a", URL) == GOLDEN_ID


GOLDEN_ID = "5e07aae5-01b8-52cc-91d2-41357e1e9092"


@pytest.mark.req("SYN-11", "CRD-7")
def test_a_record_comes_back_as_it_went_in_and_again_as_the_same_bytes() -> None:
    value = encode_record(record(removing=True, extra={"later": [1, {"x": "y"}]}))
    back = decode_record(value)
    assert spec_to_plain(back.spec) == spec_to_plain(parse_spec(BODY))
    assert (back.status, back.owner, back.revision, back.removing) == ("ready", "a", 3, True)
    assert back.extra == {"later": [1, {"x": "y"}]}
    assert encode_record(back) == value


@pytest.mark.req("CRD-7")
def test_equal_specs_are_equal_bytes_however_they_were_written() -> None:
    other = dict(reversed(list({**BODY, "cost": 1, "priority": 50}.items())))
    assert encode_record(record(spec=parse_spec(other))) == encode_record(record())


@pytest.mark.req("SYN-12")
def test_an_api_key_is_never_in_a_record() -> None:
    assert b"sk-1" not in encode_record(record(protected=True))


@pytest.mark.req("SYN-1", "SYN-7")
def test_a_record_counts_only_in_the_log_of_the_owner_its_key_is_derived_from() -> None:
    value = encode_record(record())
    assert classify("a", worker_key("a", URL), value) is Ownership.OWN
    assert classify("b", worker_key("a", URL), value) is Ownership.FOREIGN
    assert classify("a", worker_key("b", URL), value) is Ownership.FOREIGN
    assert classify("a", worker_key("a", URL), b"\xff") is Ownership.UNREADABLE


def test_a_record_that_is_classified_and_then_taken_in_is_decoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded: list[bytes] = []
    loads = cbor2.loads

    def counted(value: bytes, **options: Any) -> Any:
        decoded.append(value)
        return loads(value, **options)

    monkeypatch.setattr(cbor2, "loads", counted)
    value = encode_record(record(revision=77))
    assert classify("a", worker_key("a", URL), value) is Ownership.OWN
    assert classify("a", worker_key("a", URL), bytes(bytearray(value))) is Ownership.OWN
    first = decode_record(value)
    assert decoded == [value]
    assert decode_record(value) == first
    assert decoded == [value, value]


@pytest.mark.req("SYN-11")
def test_a_status_that_only_a_newer_version_knows_counts_as_not_ready() -> None:
    plain = cbor2.loads(encode_record(record()))
    plain["status"] = "warming"
    assert decode_record(cbor2.dumps(plain)).status == "not_ready"


def altered(**changes: object) -> bytes:
    plain = cbor2.loads(encode_record(record()))
    plain.update(changes)
    return cbor2.dumps({name: item for name, item in plain.items() if item is not None})


TWICE = b"\xa6" + encode_record(record())[1:] + cbor2.dumps("v") + cbor2.dumps(1)
ENDLESS = b"\xbf" + encode_record(record())[1:] + b"\xff"


@pytest.mark.req("SYN-11", "SEC-4")
@pytest.mark.parametrize(
    "value",
    [b"", b"\x00", b"\xff", b"\xa0", b"\x80", b"\x9f", encode_record(record())[:-3],
     altered(v=None), altered(v=0), altered(v="1"), altered(spec=None), altered(spec=[]), altered(spec={}),
     altered(spec={"url": 5}), altered(spec={"url": URL, "labels": {"a": 1}}), altered(revision=0),
     TWICE, ENDLESS, altered(revision=True), altered(revision=2**60), altered(owner=7), altered(status=None),
     altered(sealed_key="x"), altered(x={b"k": 2}),
     altered(spec={"url": URL, "cost": float("nan")}), altered(x=float("inf")), altered(x={1: 2}),
     altered(x=cbor2.undefined), altered(x=2**70), altered(spec={"url": URL, 5: 6}),
     b"\xa1\x61v" + b"\x81" * 10_000 + b"\x00", b"\xba\xff\xff\xff\xff", b"\xc2" * 5000 + b"\x41\x00"],
)  # fmt: skip
def test_what_is_no_record_is_unreadable_and_raises_nothing_else(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode_record(value)


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(
    "tag", [0, 1, 2, 4, 5, 25, 28, 29, 30, 35, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799, 9999]
)
def test_no_tag_is_ever_decoded(tag: int) -> None:
    value = altered(x="MARK").replace(b"dMARK", cbor2.dumps(cbor2.CBORTag(tag, "a+")))
    with pytest.raises(RecordError):
        decode_record(value)


@pytest.mark.req("SEC-4")
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_damaged_bytes_are_a_record_or_a_record_error(noise: bytes, seed: int) -> None:
    rng = random.Random(seed)
    value = bytearray(encode_record(record()))
    for byte in noise[: rng.randrange(6)]:
        value[rng.randrange(len(value))] = byte
    for candidate in (bytes(value), noise):
        try:
            back = decode_record(candidate)
        except RecordError:
            continue
        assert decode_record(encode_record(back)) == back
