"""What happened in a simulated cluster, line by line: for people to read, and to compare two runs by.

A line has a time (seconds since the beginning), a place (a node, or `*` for the cluster), a kind and text.
Nothing in a line depends on the machine, the process or its hash seed, so one seed gives one trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

CLUSTER = "*"


class Line(NamedTuple):
    """One thing that happened."""

    time: float
    place: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.time:11.6f}  {self.place:<6} {self.kind:<8} {self.text}"


class Trace:
    """The lines so far. With `on` false nothing is kept; `frames` tells every frame, too."""

    def __init__(self, on: bool = True, frames: bool = False) -> None:
        self.on = on
        self.frames = on and frames
        self.lines: list[Line] = []

    def add(self, time: float, place: str, kind: str, text: str) -> None:
        """Note something."""
        if self.on:
            self.lines.append(Line(time, place, kind, text))

    def digest(self) -> str:
        """A hash over all lines; equal for equal traces, byte for byte."""
        told = hashlib.sha256()
        for line in self.lines:
            told.update(repr(tuple(line)).encode())
        return told.hexdigest()

    def text(self) -> str:
        """All lines."""
        return "\n".join(str(line) for line in self.lines)


def timeline(lines: Iterable[Line], nodes: list[str], width: int = 34) -> str:
    """The lines with a column for each node, so that what happened at the same time stands side by side."""
    columns = [*nodes]
    head = f"{'time':>9}  " + "  ".join(name.ljust(width) for name in columns)
    rows = [head.rstrip(), "-" * len(head)]
    for line in lines:
        text = f"{line.kind} {line.text}"
        if line.place not in columns:
            rows.append(f"{line.time:9.3f}  === {text}")
            continue
        cells = ["".ljust(width)] * len(columns)
        at = columns.index(line.place)
        pieces = [text[i : i + width] for i in range(0, len(text), width)] or [""]
        for number, piece in enumerate(pieces):
            cells[at] = piece.ljust(width)
            time = f"{line.time:9.3f}" if number == 0 else " " * 9
            rows.append(f"{time}  {'  '.join(cells)}".rstrip())
    return "\n".join(rows)
