from __future__ import annotations

import pytest

from meshd.cli import human


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9, "59s"),
        (60, "1m"),
        (95, "1m35s"),
        (3600, "1h"),
        (3725, "1h2m"),
        (90000, "1d1h"),
        (-5, "-5s"),
    ],
)
def test_a_duration_is_shown_in_at_most_two_units(seconds: float | None, shown: str) -> None:
    assert human.duration(seconds) == shown


def test_an_age_is_never_negative_when_clocks_differ() -> None:
    assert human.age(-3.0) == "now"
    assert human.age_since("2026-01-02T03:04:05Z", 1767323045.0 - 60) == "now"


def test_an_rfc_3339_time_becomes_an_age() -> None:
    assert human.age_since("2026-01-02T03:02:05+00:00", 1767323045.0) == "2m"
    assert human.age_since("2026-01-02T03:03:55.000Z", 1767323045.0) == "10s"


def test_a_time_that_cannot_be_read_is_shown_as_it_came() -> None:
    assert human.age_since("yesterday", 0.0) == "yesterday"
    assert human.age_since(None, 0.0) == "-"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        ("", "-"),
        (True, "yes"),
        (0, "0"),
        (1.0, "1"),
        ([], "-"),
        (["a", "b"], "a,b"),
        ({"gpu": "h100"}, "gpu=h100"),
    ],
)
def test_a_cell_shows_plain_values_plainly(value: object, shown: str) -> None:
    assert human.text(value) == shown


def test_a_long_text_is_clipped_to_one_line() -> None:
    assert human.clip("a\n  b " + "c" * 20, 8) == "a b ccc…"
    assert human.clip("short", 8) == "short"


@pytest.mark.parametrize(("value", "shown"), [(None, "-"), (0.214, "0.2ms"), (1520, "1.5s")])
def test_a_round_trip_is_shown_in_milliseconds(value: float | None, shown: str) -> None:
    assert human.milliseconds(value) == shown
