from __future__ import annotations

import click

from meshd.cli.table import Column, field, fields, render

COLUMNS = (
    Column("NAME", field("name")),
    Column("N", field("n"), right=True),
    Column("ZONE", field("zone"), optional=True),
    Column("GEN", field("gen"), wide=True),
    Column("STATE", field("state"), state=True),
)


def plain(text: str) -> list[str]:
    return click.unstyle(text).splitlines()


def test_columns_are_aligned_and_the_last_one_is_not_padded() -> None:
    rows = [{"name": "a", "n": 5, "state": "alive"}, {"name": "longer", "n": 120, "state": "down"}]
    assert plain(render(COLUMNS, rows)) == [
        "NAME      N  STATE",
        "a         5  alive",
        "longer  120  down",
    ]


def test_wide_columns_appear_only_when_asked_for() -> None:
    row = {"name": "a", "n": 1, "gen": "1.2", "state": "alive"}
    assert "GEN" not in render(COLUMNS, [row])
    assert "GEN" in render(COLUMNS, [row], wide=True)


def test_an_optional_column_appears_once_a_row_has_something_to_show() -> None:
    assert "ZONE" in render(COLUMNS, [{"name": "a", "zone": "eu"}, {"name": "b"}])
    assert "ZONE" not in render(COLUMNS, [{"name": "a"}, {"name": "b"}])


def test_an_empty_table_still_has_its_heading() -> None:
    assert plain(render(COLUMNS, [])) == ["NAME  N  STATE"]


def test_wide_characters_take_two_cells() -> None:
    lines = plain(render(COLUMNS[:2], [{"name": "日本", "n": 1}, {"name": "abcd", "n": 2}]))
    assert lines[1:] == ["日本  1", "abcd  2"]


def test_control_characters_of_a_value_cannot_reach_the_terminal() -> None:
    assert "\x1b[31m" not in render(COLUMNS[:1], [{"name": "\x1b[31mred"}])
    assert "\x1b[31m" not in fields([("label", "\x1b[31mred\n")])


def test_a_state_is_coloured_by_its_word() -> None:
    assert click.style("failed", fg="red") in render(COLUMNS, [{"name": "a", "state": "failed"}])


def test_fields_are_aligned_and_empty_ones_left_out() -> None:
    assert plain(fields([("node", "a"), ("zone", None), ("cluster", "prod")])) == [
        "node     a",
        "cluster  prod",
    ]
