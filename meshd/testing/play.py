"""Plays a plan on a cluster: the safety phase step by step, then the liveness phase, and tells how it went.

The liveness phase is the same for every plan: the network is whole, disks and clocks are right, everybody
runs, backends answer. From there the cluster has BOUND_S to agree; drains get their time to end; then
everything that was promised must be true, and every worker that its owner calls ready must be in rotation.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from meshd.errors import MeshdError
from meshd.testing.checks import Invariant, Violation
from meshd.testing.cluster import INVARIANTS, SimCluster, SimTimeout
from meshd.testing.latency import Latency
from meshd.testing.plan import Plan, Step

BOUND_S: Final = 60.0
"""Seconds within which a whole cluster must agree."""
LEAVE_S: Final = 2.0
"""Seconds for those that are about to stop."""
DRAINS_S: Final = 4.0
"""Seconds after which every drain of a plan has ended."""
SERVE_S: Final = 150.0
"""Seconds within which every healthy worker must be in rotation: a failed import is asked once a minute."""


@dataclass(slots=True)
class Outcome:
    """How a plan went. `violation` is None if all held."""

    plan: Plan
    violation: Violation | None = None
    node_seconds: float = 0.0
    events: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    converged_s: float = 0.0
    """How long the cluster took to agree once it was whole."""
    details: str = ""
    """Where an error of ours was raised, if one was."""
    cluster: SimCluster | None = None
    """The cluster as it stands at the end, if it was to be kept."""


def url_of(number: int) -> str:
    """The URL of a plan's worker."""
    return f"http://10.0.0.{number}:8000"


def play(
    plan: Plan,
    *,
    trace: bool = False,
    invariants: tuple[type[Invariant], ...] = INVARIANTS,
    prepare: Callable[[SimCluster], None] | None = None,
) -> Outcome:
    """Play a plan to its end or to the first violation. `prepare` gets the cluster before it starts."""
    cluster = SimCluster(
        plan.nodes, seed=plan.seed, settings=plan.settings, trace=trace, invariants=invariants, start=False
    )
    outcome = Outcome(plan)
    try:
        if prepare is not None:
            prepare(cluster)
        for name in cluster.nodes:
            cluster.start(name)
        for step in plan.steps:
            cluster.run_to(step.at)
            do(cluster, step)
        cluster.run_to(plan.safety_s)
        outcome.converged_s = _liveness(cluster)
    except Violation as violation:
        outcome.violation = violation
    except Exception as error:
        # Whatever the code under test raises ends this plan, and is what the plan shows.
        at = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} in {at.name}"
        outcome.violation = Violation("no_code_of_ours_raises", "", cluster.now, text)
        outcome.details = traceback.format_exc()
        cluster.trace.add(cluster.now, "*", "VIOLATED", text)
    outcome.node_seconds = cluster.now * plan.nodes
    outcome.events = cluster.heap.done
    outcome.faults = cluster.faults
    outcome.cluster = cluster if trace else None
    return outcome


def _liveness(cluster: SimCluster) -> float:
    make_whole(cluster)
    took = cluster.converge(BOUND_S, settle=False)
    cluster.run_for(DRAINS_S)
    cluster.converge(BOUND_S)
    try:
        cluster.run_until(lambda: not idle_workers(cluster), SERVE_S)
    except SimTimeout:
        text = f"not in rotation after {SERVE_S:g} s: {'; '.join(idle_workers(cluster))}"
        raise Violation("healthy_workers_are_in_rotation", "", cluster.now, text) from None
    return took


def make_whole(cluster: SimCluster) -> None:
    """End all faults, and start whoever does not run."""
    cluster.heal()
    cluster.loss(0.0)
    cluster.health.clear()
    for name, place in cluster.nodes.items():
        cluster.fill_disk(name, False)
        place.clock.drift(1.0, cluster.now)
        cluster.resume(name)
    cluster.run_for(LEAVE_S)
    for name, place in cluster.nodes.items():
        if place.stranger:
            cluster.new_disk(name)
        cluster.start(name)


def idle_workers(cluster: SimCluster) -> list[str]:
    """Workers that are not routed to where they should be, given that every backend answers."""
    idle = []
    for process in cluster.running():
        for worker in process.plane.registry:
            if worker.is_local:
                wanted = worker.status in ("ready", "failed", "draining")
            else:
                wanted = worker.is_ready or worker.owner_word != "ready"
            if not wanted:
                idle.append(f"{worker.url} is {worker.status} on {process.name}")
    return idle


def do(cluster: SimCluster, step: Step) -> None:
    """Do one step; one that makes no sense now does nothing. Raises KeyError for one that is none."""
    try:
        DEEDS[step.do](cluster, *step.args)
    except MeshdError:
        return  # refused, as the API would: a URL that is taken, a node that does not run


def _restarting(cluster: SimCluster, name: str) -> None:
    if cluster[name].up:
        cluster.upgrade(name)


def _config(cluster: SimCluster, name: str, number: int, value: int | None) -> None:
    setting = ("capacity.slots_per_worker", "capacity.override", "capacity.max_concurrent_requests")[number]
    cluster[name].set_config(setting, value)


def _register(cluster: SimCluster, name: str, number: int, mark: int) -> None:
    cluster[name].register(url_of(number), labels={"mark": str(mark)})


def _replace(cluster: SimCluster, name: str, number: int, mark: int) -> None:
    cluster[name].register_or_replace(url_of(number), labels={"mark": str(mark)})


DEEDS: Final[dict[str, Callable[..., Any]]] = {
    "register": _register,
    "replace": _replace,
    "remove": lambda cluster, name, number, drain: cluster[name].remove(url_of(number), drain),
    "drain": lambda cluster, name, number: cluster[name].drain(url_of(number)),
    "undrain": lambda cluster, name, number: cluster[name].undrain(url_of(number)),
    "config": _config,
    "health": lambda cluster, number, answer, by: cluster.set_health(url_of(number), answer, by),
    "partition": lambda cluster, side: cluster.partition(side.split(",")),
    "isolate": lambda cluster, name: cluster.isolate(name),
    "cut": lambda cluster, a, b: cluster.cut(a, b),
    "heal": lambda cluster: cluster.heal(),
    "stall": lambda cluster, a, b: cluster.stall(a, b),
    "loss": lambda cluster, rate: cluster.loss(rate),
    "delay": lambda cluster, median_s, spread: cluster.delay(Latency(median_s, spread)),
    "reset": lambda cluster, a, b: cluster.reset(a, b),
    "half_open": lambda cluster, a, b: cluster.half_open(a, b),
    "slow": lambda cluster, name, seconds: cluster.slow(name, seconds),
    "pause": lambda cluster, name: cluster.pause(name),
    "resume": lambda cluster, name: cluster.resume(name),
    "crash": lambda cluster, name, silently: cluster.crash(name, silently=silently),
    "start": lambda cluster, name: cluster.start(name),
    "stop": lambda cluster, name: cluster.stop(name),
    "upgrade": _restarting,
    "lose_writes": lambda cluster, name, lose: cluster.crash(name, lose=lose),
    "tear": lambda cluster, name, lose: cluster.crash(name, lose=lose, lying=True),
    "lose_disk": lambda cluster, name: cluster.lose_disk(name),
    "keep_image": lambda cluster, name: cluster.keep_image(name),
    "revert_disk": lambda cluster, name: cluster.revert_disk(name),
    "garble_disk": lambda cluster, name, owner: cluster.garble_disk(name, owner),
    "clone_disk": lambda cluster, source, target: cluster.clone_disk(source, target),
    "fill_disk": lambda cluster, name: cluster.fill_disk(name),
    "empty_disk": lambda cluster, name: cluster.fill_disk(name, False),
    "jump": lambda cluster, name, seconds: cluster.clock_jump(name, seconds),
    "drift": lambda cluster, name, rate: cluster.clock_drift(name, rate),
    "leave": lambda cluster, name: cluster.leave(name),
    "forget": lambda cluster, name, owner: cluster[name].forget(owner),
}
"""Step -> what it does."""
