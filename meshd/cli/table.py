"""Aligned tables and field lists, for terminals and for `awk`.

Rules: columns are two spaces apart, never cut (a script may read them); the last column is
not padded; an empty cell is `-`, so that every line has the same number of words where the
cells have no spaces. Colour is a hint only: it is dropped when stdout is not a terminal.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from meshd.cli import human

Row = Mapping[str, Any]

COLOURS: Mapping[str, str] = {
    "ready": "green",
    "alive": "green",
    "pending": "yellow",
    "suspect": "yellow",
    "draining": "yellow",
    "not_ready": "red",
    "failed": "red",
    "down": "red",
    "unreadable": "red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, what a row shows in it, and where it appears.

    `wide` columns appear with `-o wide` only. `optional` ones disappear when no row has
    anything to show in them. `state` ones are coloured by their word.
    """

    head: str
    cell: Callable[[Row], object]
    wide: bool = False
    right: bool = False
    optional: bool = False
    state: bool = False


def field(name: str) -> Callable[[Row], object]:
    """A cell that shows the row's field as it is."""
    return lambda row: row.get(name)


def _width(text: str) -> int:
    """Terminal cells that `text` takes: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def _printable(text: str) -> str:
    """No control characters: a worker's label must not be able to drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def coloured(word: str) -> str:
    """`word` in the colour of the status that it begins with."""
    colour = COLOURS.get(word.split(" ", 1)[0])
    return click.style(word, fg=colour) if colour else word


def render(columns: Sequence[Column], rows: Iterable[Row], *, wide: bool = False) -> str:
    """The table as text, heading first, lines joined by newlines."""
    shown = [column for column in columns if wide or not column.wide]
    cells = [[_printable(human.text(column.cell(row))) for column in shown] for row in rows]
    kept = [
        index
        for index, column in enumerate(shown)
        if not column.optional or any(line[index] != human.ABSENT for line in cells)
    ]
    heads = [shown[index].head for index in kept]
    body = [[line[index] for index in kept] for line in cells]
    widths = [max([_width(head), *(_width(line[at]) for line in body)]) for at, head in enumerate(heads)]

    def line_of(words: Sequence[str], *, heading: bool) -> str:
        parts = []
        for at, word in enumerate(words):
            column = shown[kept[at]]
            pad = " " * (widths[at] - _width(word))
            last = at == len(words) - 1
            painted = coloured(word) if column.state and not heading else word
            parts.append(pad + painted if column.right else painted if last else painted + pad)
        return "  ".join(parts)

    return "\n".join([line_of(heads, heading=True), *(line_of(line, heading=False) for line in body)])


def fields(pairs: Iterable[tuple[str, object]], *, indent: str = "") -> str:
    """`name  value` lines, values aligned; pairs whose value is `None` or empty are left out."""
    shown = [
        (name, _printable(human.text(value))) for name, value in pairs if value not in (None, "", [], {})
    ]
    width = max((_width(name) for name, _ in shown), default=0)
    return "\n".join(
        f"{indent}{name}{' ' * (width - _width(name))}  {coloured(value)}" for name, value in shown
    )
