"""What nodes are called where nobody says: `a` to `z`, then `n26` and on."""

from __future__ import annotations


def node_name(number: int) -> str:
    """The name of the node with this number, counted from 0."""
    return chr(ord("a") + number) if number < 26 else f"n{number}"


def node_names(count: int) -> list[str]:
    """The names of so many nodes."""
    return [node_name(number) for number in range(count)]
