"""Figures: what a benchmark measured, their percentiles, and how they are shown and written."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value. `aim` is the most it should be (with `at_least` the least), or None if nothing was
    promised."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """`ok`, `over`, `under`, or nothing where there is no aim."""
        if self.aim is None:
            return ""
        if self.at_least:
            return "ok" if self.value >= self.aim else "under"
        return "ok" if self.value <= self.aim else "over"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least `share` (0 to 1) of them do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    rank = math.ceil(share * len(values))
    return sorted(values)[max(rank, 1) - 1]


def latency_figures(
    name: str, values_s: Sequence[float], p50_ms: float | None, p99_ms: float | None
) -> list[Figure]:
    """Median and 99th percentile of some durations, in milliseconds, with their aims."""
    note = f"of {len(values_s)}"
    return [
        Figure(f"{name}, p50", percentile(values_s, 0.50) * 1e3, "ms", p50_ms, note),
        Figure(f"{name}, p99", percentile(values_s, 0.99) * 1e3, "ms", p99_ms, note),
    ]


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns."""
    rows = [("figure", "value", "aim", "", "")]
    for figure in figures:
        aim = "" if figure.aim is None else f"{_shown(figure.aim)} {figure.unit}"
        if figure.at_least:
            aim = f"at least {aim}"
        row = (figure.name, f"{_shown(figure.value)} {figure.unit}", aim, figure.verdict, figure.note)
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def write_json(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures with what a reader needs to judge them: machine, load, time."""
    content = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average_1_min": os.getloadavg()[0],
        "figures": [{**asdict(figure), "verdict": figure.verdict} for figure in figures],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
