"""The four tiers, their breakdown, and what a label says."""

from __future__ import annotations

import random

import pytest

from meshd.config import CapacityConfig
from meshd.errors import ConfigError
from meshd.workers.capacity import (
    ANY_MODEL,
    MAX_CAPACITY,
    SOURCES,
    CapacityBook,
    CapacitySettings,
    Ready,
    bad_label,
    capacity_settings,
    compute,
    positive,
    report_of,
)

DEFAULTS = CapacitySettings()


def ready(number: int, report: int | None = None, owner: str = "a", models: tuple[str, ...] = ()) -> Ready:
    return Ready(f"http://w{number}", owner, models, (), report)


@pytest.mark.req("CAP-1", "CAP-2")
@pytest.mark.parametrize(
    ("reports", "settings", "capacity", "source"),
    [
        ([], DEFAULTS, 1024, "legacy_fallback"),
        ([], CapacitySettings(max_concurrent_requests=7), 7, "legacy_fallback"),
        ([None], DEFAULTS, 64, "mixed"),
        ([None, None], CapacitySettings(slots_per_worker=10), 20, "mixed"),
        ([100, None], DEFAULTS, 164, "mixed"),
        ([100], DEFAULTS, 100, "worker_reported"),
        ([100, 28], DEFAULTS, 128, "worker_reported"),
        ([1], DEFAULTS, 1, "worker_reported"),
        ([], CapacitySettings(override=5), 5, "override"),
        ([100, None], CapacitySettings(override=5), 5, "override"),
        ([100], CapacitySettings(override=65535), 65535, "override"),
        ([65535], DEFAULTS, 65535, "worker_reported"),
        ([65535, 1], DEFAULTS, 65535, "worker_reported"),
        ([10**18, 10**18], DEFAULTS, 65535, "worker_reported"),
        ([65500, None], DEFAULTS, 65535, "mixed"),
        ([None] * 1024, DEFAULTS, 65535, "mixed"),
        ([None] * 1023, DEFAULTS, 65472, "mixed"),
    ],
)
def test_the_first_tier_that_applies_gives_the_capacity(
    reports: list[int | None], settings: CapacitySettings, capacity: int, source: str
) -> None:
    snapshot = compute([ready(number, report) for number, report in enumerate(reports)], settings)
    assert (snapshot.capacity, snapshot.source) == (capacity, source)
    assert snapshot.workers_available == len(reports)
    assert snapshot.source in SOURCES


@pytest.mark.req("CAP-2")
@pytest.mark.parametrize("override", [-1, 65_536, 70_000])
def test_an_override_out_of_range_is_a_configuration_error_naming_the_field(override: int) -> None:
    with pytest.raises(ConfigError) as caught:
        CapacitySettings(override=override)
    assert caught.value.field == "capacity.override"


@pytest.mark.req("CAP-2")
def test_the_configuration_gives_the_settings() -> None:
    assert capacity_settings(CapacityConfig()) == DEFAULTS


@pytest.mark.req("CAP-2")
def test_saturation_does_not_outlast_the_worker_that_caused_it() -> None:
    book = CapacityBook()
    book.put(ready(1, 10**9))
    book.put(ready(2, 5))
    assert book.snapshot(DEFAULTS).capacity == MAX_CAPACITY
    book.drop("http://w1")
    assert book.snapshot(DEFAULTS).capacity == 5


@pytest.mark.req("CAP-5")
def test_the_breakdown_is_by_model_and_by_owner() -> None:
    snapshot = compute(
        [
            ready(1, 10, "a", ("m1",)),
            ready(2, None, "b", ("m1", "m2")),
            ready(3, 1, "b", ("m2",)),
            ready(4, 7, "c"),
        ],
        DEFAULTS,
    )
    assert snapshot.capacity == 10 + 64 + 1 + 7
    assert snapshot.per_model == {"m1": 10 + 64 + 7, "m2": 64 + 1 + 7, ANY_MODEL: 7}
    assert snapshot.cluster == {"a": 10, "b": 65, "c": 7}


@pytest.mark.req("CAP-5")
def test_a_url_counts_once() -> None:
    assert compute([ready(1, 10, "a"), ready(1, 20, "b")], DEFAULTS)[:3] == (20, "worker_reported", 1)


@pytest.mark.req("CAP-5", "REG-9")
def test_a_model_without_ready_workers_is_in_no_breakdown() -> None:
    book = CapacityBook()
    book.put(ready(1, 10, "a", ("m1",)))
    book.put(ready(2, 10, "b", ("m2",)))
    book.drop("http://w1")
    book.drop("http://unknown")
    snapshot = book.snapshot(DEFAULTS)
    assert (snapshot.per_model, snapshot.cluster) == ({"m2": 10}, {"b": 10})


@pytest.mark.req("CAP-5")
def test_one_model_has_the_capacity_of_the_workers_that_take_it() -> None:
    book = CapacityBook()
    assert book.for_model("m1", DEFAULTS)[:3] == (1024, "legacy_fallback", 0)
    book.put(Ready("http://1", "a", ("m1",), ("gpt",), 10))
    book.put(Ready("http://2", "b", ("m2",), (), None))
    assert book.for_model("m1", DEFAULTS) == (10, "worker_reported", 1, {"m1": 10}, {"a": 10})
    assert book.for_model("gpt", DEFAULTS)[:3] == (10, "worker_reported", 1)
    assert book.for_model("m2", DEFAULTS)[:3] == (64, "mixed", 1)
    assert book.for_model("none", DEFAULTS)[:3] == (0, "worker_reported", 0)
    book.put(Ready("http://3", "b", (), (), 5))
    assert book.for_model("none", DEFAULTS)[:3] == (5, "worker_reported", 1)
    assert book.for_model("m2", CapacitySettings(override=6))[:3] == (6, "override", 2)
    assert book.for_model("m1", CapacitySettings(override=600))[:3] == (15, "worker_reported", 2)


@pytest.mark.req("CAP-3")
def test_sums_kept_through_any_changes_equal_a_count_from_scratch() -> None:
    rng = random.Random(8)
    book = CapacityBook()
    present: dict[str, Ready] = {}
    for _ in range(2000):
        one = ready(
            rng.randrange(30),
            rng.choice([None, 1, 16, 10**6]),
            rng.choice("abc"),
            tuple(rng.choices(["m1", "m2", "m3"], k=rng.randrange(3))),
        )
        if rng.random() < 0.4:
            book.drop(one.url)
            present.pop(one.url, None)
        else:
            book.put(one)
            present[one.url] = one
        assert len(book) == len(present)
        assert book.snapshot(DEFAULTS) == compute(present.values(), DEFAULTS)


@pytest.mark.req("CAP-6")
@pytest.mark.parametrize(
    ("labels", "discovered", "report", "warned"),
    [
        ({}, None, None, None),
        ({}, 32, 32, None),
        ({"max_running_requests": "48"}, None, 48, None),
        ({"max_running_requests": " 48 "}, 32, 48, None),
        ({"max_running_requests": "0"}, 32, None, "max_running_requests"),
        ({"max_running_requests": "-3"}, None, None, "max_running_requests"),
        ({"max_running_requests": "1e3"}, None, None, "max_running_requests"),
        ({"max_running_requests": "4.5"}, None, None, "max_running_requests"),
        ({"max_running_requests": ""}, None, None, "max_running_requests"),
        ({"max_running_requests": "٣"}, None, None, "max_running_requests"),
        ({"max_running_requests": "9" * 5000}, None, 10**18, None),
        ({"max_num_seqs": "256"}, None, 256, None),
        ({"max_num_seqs": "256"}, 32, 32, None),
        ({"max_num_seqs": "many"}, None, None, "max_num_seqs"),
        ({"max_num_seqs": "256", "max_running_requests": "8"}, 32, 8, None),
    ],
)
def test_a_label_wins_over_the_server_and_counts_only_as_a_positive_integer(
    labels: dict[str, str], discovered: int | None, report: int | None, warned: str | None
) -> None:
    assert report_of(labels, discovered) == report
    assert bad_label(labels) == warned


@pytest.mark.req("CAP-6")
def test_numbers_are_plain_digits() -> None:
    assert positive("007") == 7
    assert positive("9" * 5000) == 10**18
    assert positive("0" * 5000) is None
    assert positive("1_000") is None
    assert positive("+5") is None
