"""Plays a replay file again and shows what happened, a column for each node."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshd.errors import ConfigError
from meshd.testing.names import node_names
from meshd.testing.place import configuration
from meshd.testing.plan import Plan, Step
from meshd.testing.play import DEEDS, Outcome, play
from meshd.testing.trace import Line, timeline

TOLD = frozenset({"cluster", "fault", "command", "member", "worker", "disk", "VIOLATED"})
"""Kinds of lines that are shown; with `everything`, log lines too."""

MOST_NODES: Final = 26
LONGEST_S: Final = 86_400.0
_NODES: Final = frozenset({"name", "a", "b", "owner", "by", "side"})
"""What steps call their arguments that are names of nodes."""


def read(path: Path) -> Plan:
    """Read a replay file that can be played. Raises OSError, or ValueError saying what is wrong with it."""
    try:
        plan = Plan.read(path)
    except RecursionError:
        raise ValueError("not a replay file: lists within lists within lists") from None
    if not 1 <= plan.nodes <= MOST_NODES:
        raise ValueError(f"it has {plan.nodes} nodes; 1 to {MOST_NODES} can be played")
    if not 0 <= plan.safety_s <= LONGEST_S:
        raise ValueError(f"its safety phase takes {plan.safety_s:g} s; 0 to {LONGEST_S:g} can be played")
    names = node_names(plan.nodes)
    try:
        configuration(names[0], dict(plan.settings))
    except ConfigError as error:
        raise ValueError(f"its settings: {error}") from None
    before = 0.0
    for number, step in enumerate(plan.steps, 1):
        wrong = _wrong_with(step, names, before)
        if wrong:
            raise ValueError(f"step {number} ({str(step).strip()}): {wrong}")
        before = step.at
    return plan


def _wrong_with(step: Step, names: list[str], before: float) -> str:
    """Why a step cannot be played; empty if it can."""
    if not (math.isfinite(step.at) and before <= step.at <= LONGEST_S):
        return "its time is not one after that of the step before"
    deed = DEEDS.get(step.do)
    if deed is None:
        return f"there is no step {step.do!r} in this version; there are {', '.join(sorted(DEEDS))}"
    try:
        given = inspect.signature(deed).bind(None, *step.args).arguments
    except TypeError as error:
        return str(error)
    for what, arg in given.items():
        if what in _NODES and arg is not None:
            for name in str(arg).split(","):
                if name not in names:
                    return f"there is no node {name!r}; there are {', '.join(names)}"
    return ""


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
