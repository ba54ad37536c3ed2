"""What the ledger of promises demands of each disk fault, on histories that are made by hand."""

from __future__ import annotations

import pytest

from meshd.testing.ledger import History, Write
from meshd.workers.model import parse_spec

pytestmark = pytest.mark.req("SIM-3")

SPEC = parse_spec({"url": "http://10.0.0.1:8000"})


def history(*writes: Write) -> History:
    """The commands about one worker, oldest first."""
    return History("a", SPEC.url, list(writes))


def write(seq: int, **fields: object) -> Write:
    """An acknowledged registration; `fields` as in Write."""
    made = Write(SPEC, (1, 1, seq), acknowledged=True)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_the_newest_acknowledged_write_counts_or_one_that_was_asked_later() -> None:
    old, new, asked = write(1), write(2), write(3, acknowledged=False)
    assert history(old, new, asked).promised() == [new, asked]


def test_a_write_of_which_no_copy_is_left_gives_way_to_the_one_before() -> None:
    old, gone = write(1), write(2, kept=False, lost=True)
    assert history(old, gone).promised() == [old]
    assert history(gone).promised() == []


def test_writes_of_dead_branches_are_equals_and_those_of_the_living_line_are_not() -> None:
    torn = write(1, kept=False)
    later = write(2, beside=[torn])
    assert history(torn, later).promised() == [later]
    later.kept = False
    assert history(torn, later).promised() == [later, torn]
    torn.lost = True
    assert history(torn, later).promised() == [later]
