"""A plan: everything that will be done to a cluster, and when, made from a seed and written down as JSON.

A plan is fixed before anything runs and does not look at what happens, so that steps can be taken out of it
one by one to find the few that matter; a step that makes no sense when its time comes does nothing. Time
runs in two phases: *safety*, in which everything may go wrong, and *liveness*, in which all is whole again
and the cluster has to agree within a stated bound.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from meshd.testing.names import node_names

FORMAT: Final = "meshd-sim-plan-1"

Arg = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: `do` names it (see `play.DEEDS`), at `at` seconds."""

    at: float
    do: str
    args: tuple[Arg, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:9.3f}  {self.do} {' '.join(str(arg) for arg in self.args)}".rstrip()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play. `seed` also decides what chance decides within: delays, jitter, who dials first."""

    seed: int
    profile: str
    nodes: int
    safety_s: float
    steps: tuple[Step, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def with_steps(self, steps: tuple[Step, ...]) -> Plan:
        """The same plan with other steps."""
        return replace(self, steps=steps)

    def to_json(self, violation: str = "") -> str:
        """The plan as a replay file; `violation` says what it shows."""
        rows = [[step.at, step.do, *step.args] for step in self.steps]
        head = {
            "format": FORMAT,
            "violation": violation,
            "seed": self.seed,
            "profile": self.profile,
            "nodes": self.nodes,
            "safety_s": self.safety_s,
            "settings": self.settings,
        }
        body = ",\n    ".join(json.dumps(row) for row in rows)
        return f'{json.dumps(head, indent=2)[:-2]},\n  "steps": [\n    {body}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a replay file. Raises ValueError if it is none."""
        try:
            read = json.loads(text)
            if read["format"] != FORMAT:
                raise ValueError(f"its format is {read['format']!r}, not {FORMAT!r}")
            steps = tuple(Step(float(row[0]), str(row[1]), tuple(row[2:])) for row in read["steps"])
            return cls(
                int(read["seed"]),
                str(read["profile"]),
                int(read["nodes"]),
                float(read["safety_s"]),
                steps,
                dict(read["settings"]),
            )
        except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
            raise ValueError(f"not a replay file: {error!r}") from None

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a replay file. Raises OSError, or ValueError if it is none."""
        return cls.from_json(path.read_text(encoding="utf-8"))


WORK: Final = {"register": 10, "replace": 4, "remove": 5, "drain": 3, "undrain": 2, "config": 3, "health": 4}
NET: Final = {
    "partition": 4,
    "isolate": 2,
    "cut": 3,
    "heal": 6,
    "stall": 2,
    "loss": 2,
    "delay": 2,
    "reset": 4,
    "half_open": 2,
    "slow": 1,
}
LIFE: Final = {"pause": 2, "resume": 3, "crash": 4, "start": 9, "stop": 1, "upgrade": 1}
DISK: Final = {
    "lose_writes": 3,
    "tear": 3,
    "lose_disk": 2,
    "keep_image": 3,
    "revert_disk": 3,
    "garble_disk": 2,
    "clone_disk": 1,
    "fill_disk": 1,
    "empty_disk": 1,
}
CLOCK: Final = {"jump": 2, "drift": 2}
FATE: Final = {"leave": 1, "forget": 1}

PROFILES: Final[dict[str, dict[str, int]]] = {
    "all": WORK | NET | LIFE | DISK | CLOCK | FATE,
    "net": WORK | NET,
    "crash": WORK | LIFE | DISK,
    "disk": WORK | DISK | {"crash": 3, "start": 9, "reset": 3, "partition": 2, "heal": 3},
    "life": WORK | LIFE | CLOCK | FATE,
    "quiet": WORK,
    "storm": WORK | NET | LIFE | DISK | CLOCK | FATE,
}
"""What may happen, and how often in relation to the rest."""

LENGTHS: Final[dict[str, tuple[float, int]]] = {"storm": (150.0, 260)}
"""Seconds and steps of the safety phase, where they are not DEFAULT_LENGTH."""
DEFAULT_LENGTH: Final = (60.0, 60)


def make_plan(seed: int, profile: str = "all", nodes: int = 5, safety_s: float | None = None) -> Plan:
    """Make a random plan. Raises KeyError for a profile that is none."""
    usual_s, steps = LENGTHS.get(profile, DEFAULT_LENGTH)
    safety_s = usual_s if safety_s is None else safety_s
    rng = random.Random(f"plan/{seed}/{profile}/{nodes}")
    kinds, weights = zip(*PROFILES[profile].items(), strict=True)
    names = node_names(nodes)
    made = []
    for at in sorted(rng.uniform(0.0, safety_s) for _ in range(steps)):
        do = rng.choices(kinds, weights)[0]
        made.append(Step(round(at, 3), do, _ARGS[do](rng, names)))
    settings: dict[str, Any] = {
        "health.check_interval_secs": 2,
        "health.drain_settle_secs": rng.choice((0, 2)),
        "store.durability": rng.choice(("normal", "full")),
        "sync.tombstone_grace_s": rng.choice((10, 600)),
        "sync.forget_after_s": rng.choice((40, 86_400)),
    }
    return Plan(seed, profile, nodes, safety_s, tuple(made), settings)


def _node(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    return (rng.choice(names),)


def _two(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    return tuple(rng.sample(names, 2))


def _worker(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    """A node and one of few workers, so that nodes often mean the same one."""
    return (rng.choice(names), rng.randrange(1, 9))


def _spec(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    return (*_worker(rng, names), rng.getrandbits(30))


def _sides(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    side = rng.sample(names, rng.randrange(1, max(2, len(names) // 2 + 1)))
    return (",".join(sorted(side)),)


def _health(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    answer = rng.choice(("pass", "pass", "fail", "timeout", "flap"))
    return (rng.randrange(1, 9), answer, rng.choice((None, *names)))


def _garbled(rng: random.Random, names: list[str]) -> tuple[Arg, ...]:
    """A node, and whose log on its disk is damaged: often its own, which is the harder case."""
    name = rng.choice(names)
    return (name, name if rng.random() < 0.5 else rng.choice(names))


_ARGS: Final[dict[str, Callable[[random.Random, list[str]], tuple[Arg, ...]]]] = {
    "register": _spec,
    "replace": _spec,
    "remove": lambda rng, names: (*_worker(rng, names), rng.random() < 0.5),
    "drain": _worker,
    "undrain": _worker,
    "config": lambda rng, names: (rng.choice(names), rng.randrange(3), rng.choice((None, 1, 2, 3, 4, 5))),
    "health": _health,
    "partition": _sides,
    "isolate": _node,
    "cut": _two,
    "heal": lambda rng, names: (),
    "stall": _two,
    "loss": lambda rng, names: (rng.choice((0.0, 0.002, 0.02)),),
    "delay": lambda rng, names: (rng.choice((0.0005, 0.04, 0.2, 1.0)), rng.choice((0.0, 0.3, 1.2))),
    "reset": _two,
    "half_open": _two,
    "slow": lambda rng, names: (rng.choice(names), rng.choice((0.0, 0.1, 1.0, 3.0))),
    "pause": _node,
    "resume": _node,
    "crash": lambda rng, names: (rng.choice(names), rng.random() < 0.3),
    "start": _node,
    "stop": _node,
    "upgrade": _node,
    "lose_writes": lambda rng, names: (rng.choice(names), rng.randrange(1, 20)),
    "tear": lambda rng, names: (rng.choice(names), rng.randrange(1, 40)),
    "lose_disk": _node,
    "keep_image": _node,
    "revert_disk": _node,
    "garble_disk": _garbled,
    "clone_disk": _two,
    "fill_disk": _node,
    "empty_disk": _node,
    "jump": lambda rng, names: (rng.choice(names), rng.choice((-1e9, -86_400.0, -30.0, 30.0, 86_400.0))),
    "drift": lambda rng, names: (rng.choice(names), rng.choice((0.9, 0.99, 1.0, 1.01, 1.1))),
    "leave": _node,
    "forget": _two,
}
