"""The visible map: a pure function of the logs, kept step by step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.prefixes import Claim, Envelope, Prefix, PrefixTable, Rule, seal, unseal
from crdt.view import View, Visible
from tests.support.maps import HLC, key, new_map, send, table, values

OWNERS = "abc"
keys = st.sampled_from([key("a", 0), key("b", 0), "config:0", "config:1", "unknown:0", "no prefix at all"])
written = st.one_of(
    st.none(),
    st.sampled_from([b"1", b"2", b"!unreadable", b""]),
    st.builds(
        lambda version, writer, payload: seal(Envelope(version, writer, payload)),
        st.integers(1, 3),
        st.sampled_from(OWNERS),
        st.sampled_from([None, b"p", b"q"]),
    ),
)
entries = st.lists(st.tuples(st.sampled_from(OWNERS), keys, written), max_size=30)


def shown(view: View) -> dict[str, Visible]:
    return view.winners


@pytest.mark.req("CRD-1", "SYN-7")
@given(entries, st.randoms(use_true_random=False))
def test_it_depends_on_the_logs_alone_and_not_on_how_they_came_about(
    steps: list[tuple[str, str, bytes | None]], shuffle: object
) -> None:
    logs: dict[str, OwnerLog] = {owner: OwnerLog(owner, (1, 1)) for owner in OWNERS}
    gradual = View(table(), logs)
    for owner, name, value in steps:
        logs[owner].append(name, value, HLC)
        changed = gradual.refresh(owner, (name,))
        assert set(changed) <= {name}
    for order in ("abc", "cab", "bca"):
        at_once = View(table(), logs)
        for owner in order:
            at_once.refresh(owner, list(logs[owner].entries))
        assert shown(at_once) == shown(gradual)
        assert at_once.digest == gradual.digest
        assert at_once.foreign == gradual.foreign
        assert at_once.unreadable == gradual.unreadable


@given(entries)
def test_it_tells_exactly_the_keys_whose_visible_value_changed(
    steps: list[tuple[str, str, bytes | None]],
) -> None:
    logs: dict[str, OwnerLog] = {owner: OwnerLog(owner, (1, 1)) for owner in OWNERS}
    view = View(table(), logs)
    for owner, name, value in steps:
        old = view.winners.get(name)
        logs[owner].append(name, value, HLC)
        changed = view.refresh(owner, (name,))
        new = view.winners.get(name)
        same = (old and (old.owner, old.value, old.readable)) == (
            new and (new.owner, new.value, new.readable)
        )
        assert (changed == []) == same


@pytest.mark.req("SYN-7", "CRD-3")
def test_nobody_replaces_or_removes_what_is_anothers() -> None:
    a, b = new_map("a"), new_map("b")
    a.put(key("a", 1), b"mine", HLC)
    send(a, b, "a")
    b.put(key("a", 1), b"forged", HLC)
    assert values(b) == {key("a", 1): b"mine"}
    assert b.view.foreign == {key("a", 1): {"b"}}
    b.delete(key("a", 1), HLC)
    send(b, a, "b")
    assert values(a) == values(b) == {key("a", 1): b"mine"}
    assert b.view.foreign == {}


@pytest.mark.req("SYN-11")
def test_a_value_that_cannot_be_read_replaces_what_it_updated_and_is_shown_as_such() -> None:
    a, b = new_map("a"), new_map("b")
    a.put(key("a", 1), b"good", HLC)
    a.put(key("a", 1), b"!bad", HLC)
    send(a, b, "a")
    found = b.visible(key("a", 1))
    assert found is not None
    assert (found.value, found.readable) == (b"!bad", False)
    assert b.view.unreadable == {key("a", 1)}
    a.put(key("a", 1), b"good again", HLC)
    send(a, b, "a")
    assert b.view.unreadable == set()


@pytest.mark.req("CRD-2", "CRD-3")
def test_of_a_shared_key_the_greatest_stamp_counts_and_writers_break_ties() -> None:
    a, b = new_map("a"), new_map("b")
    a.put("config:x", b"a1", HLC)
    b.put("config:x", b"b1", HLC)
    for reader in (a, b):
        send(a, reader, "a") if reader is b else send(b, reader, "b")
        assert values(reader) == {"config:x": b"b1"}
    a.put("config:x", b"a2", HLC)
    send(a, b, "a")
    assert values(a) == values(b) == {"config:x": b"a2"}


@pytest.mark.req("CRD-6")
def test_a_removed_shared_key_stays_removed_whoever_held_older_values() -> None:
    a, b, late = new_map("a"), new_map("b"), new_map("c")
    a.put("config:x", b"1", HLC)
    send(a, b, "a")
    b.delete("config:x", HLC)
    send(a, late, "a")
    assert values(late) == {"config:x": b"1"}
    send(b, late, "b")
    assert values(late) == values(b) == {}
    late.delete("config:x", HLC)  # nothing to remove
    assert "config:x" not in late.own.entries


def test_a_republished_value_is_not_read_again() -> None:
    read: list[str] = []

    def counting(owner: str, name: str, value: bytes) -> Claim:
        read.append(name)
        return Claim.OWN

    prefixes = PrefixTable(Prefix("worker:", Rule.SINGLE_WRITER, counting))
    a, b = LwwMap("a", prefixes), LwwMap("b", prefixes)
    a.start_life((1, 1))
    a.put(key("a", 1), b"x", HLC)
    a.put(key("a", 2), b"x", HLC)
    send(a, b, "a")
    read.clear()
    a.bump((2, 1))
    send(a, b, "a")
    assert read == []
    a.put(key("a", 2), b"y", HLC)
    send(a, b, "a")
    assert read == [key("a", 2)] * 2
    assert values(b) == {key("a", 1): b"x", key("a", 2): b"y"}


# -- prefixes ---------------------------------------------------------------------------------------


@given(st.integers(1, 2**53 - 1), st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=8)))
def test_an_envelope_comes_back_as_it_was_sealed(version: int, writer: str, payload: bytes | None) -> None:
    envelope = Envelope(version, writer, payload)
    assert unseal(seal(envelope)) == envelope


@given(st.binary(max_size=40))
def test_any_bytes_are_an_envelope_or_not_and_raise_nothing(data: bytes) -> None:
    found = unseal(data)
    assert found is None or 0 < found.version < 2**53


@pytest.mark.parametrize(
    "data",
    [
        seal(Envelope(0, "a", b"")),
        seal(Envelope(2**53, "a", b"")),
        b"\x83\xf5\x61a\xf6",  # version True
        b"\x82\x01\x61a",
        b"",
    ],
)
def test_a_stamp_out_of_range_is_no_envelope(data: bytes) -> None:
    assert unseal(data) is None


def test_a_prefix_table_refuses_what_could_not_be_looked_up() -> None:
    def mine(owner: str, name: str, value: bytes) -> Claim:
        return Claim.OWN

    with pytest.raises(ValueError):
        PrefixTable(Prefix("x", Rule.MULTI_WRITER))
    with pytest.raises(ValueError):
        PrefixTable(Prefix("x:", Rule.MULTI_WRITER), Prefix("x:", Rule.MULTI_WRITER))
    with pytest.raises(ValueError):
        Prefix("x:", Rule.SINGLE_WRITER)
    with pytest.raises(ValueError):
        Prefix("x:", Rule.MULTI_WRITER, mine)
