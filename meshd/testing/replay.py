"""Plays a replay file again and shows what happened, a column for each node."""

from __future__ import annotations

from collections.abc import Iterator

from meshd.testing.plan import Plan
from meshd.testing.play import Outcome, play
from meshd.testing.trace import Line, timeline

TOLD = frozenset({"cluster", "fault", "command", "member", "worker", "disk", "VIOLATED"})
"""Kinds of lines that are shown; with `everything`, log lines too."""


def replay(plan: Plan) -> Outcome:
    """Play a plan with its trace."""
    return play(plan, trace=True)


def lines_of(outcome: Outcome, *, everything: bool = False, since: float = 0.0) -> Iterator[Line]:
    """The lines of the timeline, from `since` seconds on."""
    assert outcome.cluster is not None
    for line in outcome.cluster.trace.lines:
        if line.time >= since and (everything or line.kind in TOLD):
            yield line


def report(outcome: Outcome, *, everything: bool = False, since: float = 0.0, width: int = 34) -> str:
    """The timeline, and what came of it."""
    assert outcome.cluster is not None
    shown = timeline(
        lines_of(outcome, everything=everything, since=since), list(outcome.cluster.nodes), width
    )
    verdict = "all invariants held" if outcome.violation is None else f"VIOLATED: {outcome.violation}"
    return f"{shown}\n\n{verdict}\n{outcome.details}".rstrip() + "\n"
