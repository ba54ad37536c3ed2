"""Random campaigns: `python -m meshd.testing.campaign --seeds 100 --from 1 --profile all`, or `make sim`.

Plays a plan for every seed, on several processes. A violation is shrunk to the few steps that matter, written
as a replay file, and told with its seed and the command that replays it. The last line is one summary. Exit
code 0 if all invariants held, 1 if one did not, 130 if it was interrupted (the summary is told all the same).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from meshd.testing.plan import PROFILES, Plan, make_plan
from meshd.testing.play import play
from meshd.testing.shrink import shrink

SHRINKS: Final = 3
"""Violations of one invariant that are shrunk; further ones are only counted and named by seed."""


@dataclass(frozen=True, slots=True)
class Result:
    """How one seed went, without the cluster: small enough to be handed between processes."""

    seed: int
    invariant: str
    told: str
    details: str
    node_seconds: float
    events: int
    faults: dict[str, int]
    converged_s: float


@dataclass(slots=True)
class Summary:
    """All seeds of a campaign."""

    profile: str
    seeds: int = 0
    node_seconds: float = 0.0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_seed: int = 0
    took_s: float = 0.0
    interrupted: bool = False

    def add(self, result: Result) -> None:
        """Count one seed."""
        self.seeds += 1
        self.node_seconds += result.node_seconds
        self.events += result.events
        self.faults.update(result.faults)
        if result.converged_s > self.slowest_s:
            self.slowest_s, self.slowest_seed = result.converged_s, result.seed
        if result.invariant:
            self.violations[result.invariant] += 1

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        broken = ", ".join(f"{name} {count}" for name, count in sorted(self.violations.items()))
        speed = self.node_seconds / self.took_s if self.took_s else 0.0
        return (
            f"sim: profile {self.profile}, {self.seeds} seeds, {self.node_seconds / 3600:.1f} node-hours"
            f" ({speed:,.0f} node-seconds/s), {self.events:,} events,"
            f" slowest agreement {self.slowest_s:.1f} s (seed {self.slowest_seed}),"
            f" faults: {faults or 'none'};"
            f" violations: {sum(self.violations.values())}" + (f" ({broken})" if broken else "")
        )


def play_seed(seed: int, profile: str, nodes: int) -> Result:
    """Play the plan of one seed."""
    outcome = play(make_plan(seed, profile, nodes))
    violation = outcome.violation
    return Result(
        seed,
        "" if violation is None else violation.invariant,
        "" if violation is None else str(violation),
        outcome.details,
        outcome.node_seconds,
        outcome.events,
        outcome.faults,
        outcome.converged_s,
    )


def shrink_seed(seed: int, profile: str, nodes: int, invariant: str, tries: int = 300) -> tuple[Plan, str]:
    """The shortest plan found that breaks the same invariant as the seed's, and what it shows then."""

    def shows(plan: Plan) -> bool:
        found = play(plan).violation
        return found is not None and found.invariant == invariant

    plan = shrink(make_plan(seed, profile, nodes), shows, tries)
    return plan, str(play(plan).violation)


def run(
    seeds: Iterable[int], profile: str, nodes: int, jobs: int, out: Path, say: TextIO, patience_s: float = 0.0
) -> Summary:
    """Play all seeds; tells violations as they come. Ends early after `patience_s` seconds, unless 0."""
    summary = Summary(profile)
    began = time.monotonic()
    try:
        for result in _results(seeds, partial(play_seed, profile=profile, nodes=nodes), jobs):
            summary.add(result)
            if result.invariant:
                _tell(result, profile, nodes, summary.violations[result.invariant], out, say)
            if patience_s and time.monotonic() - began > patience_s:
                break
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.took_s = time.monotonic() - began
    return summary


def _results(seeds: Iterable[int], one: partial[Result], jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _leave_interrupts_to_the_parent) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=4)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tell(result: Result, profile: str, nodes: int, number: int, out: Path, say: TextIO) -> None:
    say.write(f"\nseed {result.seed}: {result.told}\n")
    if number > SHRINKS:
        say.write(f"  again: make sim SEEDS=1 FROM={result.seed} PROFILE={profile} NODES={nodes}\n")
        return
    plan, told = shrink_seed(result.seed, profile, nodes, result.invariant)
    path = out / f"{profile}-{result.seed}.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(plan.to_json(told), encoding="utf-8")
    except OSError as error:
        say.write(f"  no replay file: {error}\n")
    say.write(f"  shrunk to {len(plan.steps)} steps on {plan.nodes} nodes: {told}\n")
    for step in plan.steps:
        say.write(f"    {step}\n")
    if result.details:
        say.write(result.details)
    say.write(f"  replay: meshctl sim replay {path}\n")
    say.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m meshd.testing.campaign", description=__doc__)
    parser.add_argument("--seeds", type=_number(1), default=100, metavar="N", help="how many seeds (100)")
    parser.add_argument(
        "--from", type=_number(0), default=None, dest="first", metavar="S", help="the first; else a fresh one"
    )
    parser.add_argument("--profile", default="all", choices=sorted(PROFILES), help="what may happen (all)")
    parser.add_argument("--nodes", type=_number(2, 26), default=5, metavar="N", help="2 to 26 nodes (5)")
    parser.add_argument(
        "--jobs", type=_number(1), default=max(1, (os.cpu_count() or 2) // 2), metavar="N", help="processes"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(".sim"), metavar="DIR", help="for replay files (.sim)"
    )
    args = parser.parse_args(arguments)
    first = args.first if args.first is not None else int(time.time()) % 1_000_000 * 1_000
    sys.stdout.write(f"seeds {first} to {first + args.seeds - 1}, profile {args.profile}\n")
    sys.stdout.flush()
    seeds = range(first, first + args.seeds)
    summary = run(seeds, args.profile, args.nodes, args.jobs, args.out, sys.stdout)
    sys.stdout.write(f"{summary}\n")
    return 130 if summary.interrupted else 1 if summary.violations else 0


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Read a number of the command line, from `least` to `most`."""

    def read(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{number} is not {allowed}")
        return number

    read.__name__ = "number"  # as it is called in the parser's own messages
    return read


if __name__ == "__main__":
    sys.exit(main())
