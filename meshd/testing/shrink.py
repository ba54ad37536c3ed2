"""Makes the plan that shows a violation as short as it gets: the few steps that matter, with round times.

Takes out runs of steps, halves first and single steps last, as long as the same invariant is violated; then
the nodes that no step names; then the digits of times. Bounded by tries, since every try plays the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshd.testing.names import node_name
from meshd.testing.plan import Plan, Step

Shows = Callable[[Plan], bool]


def shrink(plan: Plan, shows: Shows, tries: int = 400) -> Plan:
    """The shortest plan found for which `shows` still holds, in at most `tries` plays."""
    left = [tries]

    def holds(candidate: Plan) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        return shows(candidate)

    before = None
    while before != plan and left[0] > 0:
        before = plan
        plan = _fewer_steps(plan, holds)
        plan = _fewer_nodes(plan, holds)
        plan = _shorter(plan, holds)
    return plan


def _fewer_steps(plan: Plan, holds: Shows) -> Plan:
    size = max(1, len(plan.steps) // 2)
    while True:
        at = 0
        while at < len(plan.steps):
            candidate = plan.with_steps(plan.steps[:at] + plan.steps[at + size :])
            if holds(candidate):
                plan = candidate
            else:
                at += size
        if size == 1:
            return plan
        size = max(1, size // 2)


def _fewer_nodes(plan: Plan, holds: Shows) -> Plan:
    while plan.nodes > 2:
        last = node_name(plan.nodes - 1)
        named = {
            part
            for step in plan.steps
            for arg in step.args
            if isinstance(arg, str)
            for part in arg.split(",")
        }
        candidate = replace(plan, nodes=plan.nodes - 1)
        if last in named or not holds(candidate):
            return plan
        plan = candidate
    return plan


def _shorter(plan: Plan, holds: Shows) -> Plan:
    """Times with fewer digits, and a safety phase that ends with the last step."""
    for digits in (0, 1):
        steps = tuple(Step(round(step.at, digits), step.do, step.args) for step in plan.steps)
        if steps != plan.steps and holds(plan.with_steps(steps)):
            plan = plan.with_steps(steps)
            break
    end = (plan.steps[-1].at if plan.steps else 0.0) + 1.0
    candidate = replace(plan, safety_s=min(plan.safety_s, end))
    return candidate if candidate != plan and holds(candidate) else plan
