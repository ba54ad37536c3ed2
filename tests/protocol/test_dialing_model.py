"""The dialer with its heap does what one would that looks at every address each time."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.protocol.dialing import FIRST_PAUSE_S, GOSSIP_DIALS_PER_S, LONGEST_PAUSE_S, Dialer


class Even(Random):
    """Never spreads anything: the order of the draws does not matter."""

    def random(self) -> float:
        """The middle."""
        return 0.5


@dataclass
class Known:
    """An address as the model knows it."""

    source: str
    next_at: float
    failures: int = 0
    busy: bool = False
    leads_to: str = ""


class Model:
    """A dialer that looks at every address each time."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.own: set[str] = set()

    def add(self, address: str, source: str, now: float, delay_s: float) -> None:
        known = self.known.get(address)
        if known is None:
            self.known[address] = Known(source, now + delay_s)
            return
        if known.source == "gossip":
            known.source = source
        if not (known.busy or known.failures or known.leads_to):
            known.next_at = min(known.next_at, now + delay_s)

    def retry_now(self, address: str, now: float) -> None:
        if address in self.known:
            self.known[address].next_at, self.known[address].failures = now, 0
            self.own.discard(address)

    def open(self) -> Iterable[tuple[str, Known]]:
        return ((a, k) for a, k in self.known.items() if not k.busy and a not in self.own)

    def due(self, now: float, connected: Container[str]) -> set[str]:
        due = set()
        for address, known in self.open():
            if known.next_at <= now:
                if known.leads_to and known.leads_to in connected:
                    known.next_at = now + LONGEST_PAUSE_S
                else:
                    due.add(address)
        for address in due:
            self.known[address].busy = True
        return due

    def failed(self, address: str, now: float) -> None:
        if (known := self.known.get(address)) is not None:
            known.busy = False
            longest = LONGEST_PAUSE_S
            if known.source == "gossip":
                longest = max(longest, len(self.known) / GOSSIP_DIALS_PER_S)
            known.next_at = now + min(longest, FIRST_PAUSE_S * 2.0**known.failures)
            known.failures += 1

    def hold_off(self, address: str, now: float) -> None:
        if (known := self.known.get(address)) is not None:
            known.busy, known.next_at = False, now + LONGEST_PAUSE_S

    def succeeded(self, address: str, name: str) -> None:
        if (known := self.known.get(address)) is not None:
            known.failures, known.leads_to = 0, name

    def drop(self, address: str) -> None:
        if address in self.known and self.known[address].source == "gossip":
            del self.known[address]


ADDRESSES = st.sampled_from(["a:1", "b:1", "c:1"])
STEPS = st.one_of(
    st.tuples(
        st.just("add"), ADDRESSES, st.sampled_from(["static", "gossip"]), st.sampled_from([0.0, 0.5, 2.0])
    ),
    st.tuples(st.sampled_from(["retry_now", "failed", "hold_off", "is_self", "drop"]), ADDRESSES),
    st.tuples(st.just("succeeded"), ADDRESSES, st.sampled_from(["x", "y"])),
    st.tuples(st.just("look"), st.sets(st.sampled_from(["x", "y"]))),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 0.4, 0.5, 5.0, 1000.0])),
)


@pytest.mark.req("MSH-1", "MSH-3")
@settings(max_examples=200)
@given(st.lists(STEPS, min_size=10, max_size=40))
def test_whatever_becomes_of_addresses_each_is_dialled_when_it_is_due(
    steps: list[tuple[object, ...]],
) -> None:
    dialer, model, now = Dialer(Even()), Model(), 0.0
    for step in steps:
        match step:
            case ("add", str(address), str(source), float(delay_s)):
                dialer.add([address], source, now, delay_s)
                model.add(address, source, now, delay_s)
            case ("retry_now", str(address)):
                dialer.retry_now([address], now)
                model.retry_now(address, now)
            case ("failed", str(address)):
                dialer.failed(address, "refused", now)
                model.failed(address, now)
            case ("hold_off", str(address)):
                dialer.hold_off(address, now)
                model.hold_off(address, now)
            case ("is_self", str(address)):
                dialer.is_self(address)
                model.own.add(address)
            case ("drop", str(address)):
                dialer.drop(address)
                model.drop(address)
            case ("succeeded", str(address), str(name)):
                dialer.succeeded(address, name)
                model.succeeded(address, name)
            case ("wait", float(seconds)):
                now += seconds
            case ("look", set(connected)):
                assert set(dialer.due(now, connected)) == model.due(now, connected)
        soonest = min((known.next_at for _, known in model.open()), default=None)
        deadline = dialer.next_deadline()
        assert soonest is None or (deadline is not None and deadline <= soonest)
