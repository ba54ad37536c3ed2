"""The arithmetic of the benchmarks (the benchmarks themselves are not tests)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.figures import Figure, latency_figures, percentile, table, write_json


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.50) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 1.0) == 100.0
    assert percentile([7.0], 0.01) == 7.0


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError):
        percentile([], 0.5)


def test_a_figure_over_its_aim_is_shown_as_such() -> None:
    p50, p99 = latency_figures("x", [0.001] * 98 + [0.020] * 2, 3.0, 15.0)
    assert (p50.verdict, p99.verdict) == ("ok", "over")
    assert "over" in table([p50, p99]).splitlines()[2]
    assert Figure("no aim", 1.0, "s").verdict == ""


def test_a_figure_may_have_to_be_at_least_its_aim() -> None:
    slow, fast = (Figure("rate", value, "/s", 500_000, at_least=True) for value in (499_999.0, 500_000.0))
    assert (slow.verdict, fast.verdict) == ("under", "ok")
    assert "at least 500,000 /s" in table([slow])


def test_figures_are_written_with_what_a_reader_needs(tmp_path: Path) -> None:
    write_json(tmp_path / "figures.json", [Figure("x", 1.5, "s", 2.0)])
    content = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert content["figures"] == [
        {"name": "x", "value": 1.5, "unit": "s", "aim": 2.0, "note": "", "at_least": False, "verdict": "ok"}
    ]
    assert {"at", "python", "cores", "load_average_1_min"} <= content.keys()
