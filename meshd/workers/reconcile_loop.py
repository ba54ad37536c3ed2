"""The reconcile pass: from time to time, registry and store are compared key by key, both ways (SYN-10).

Rules it keeps: the first pass is one interval after start; a pass that finds nothing changes nothing; it
works in slices, so that the event loop is never held for long; what it cost and repaired is counted, and
logged when there was something to repair.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from meshd.workers.plane import WorkerPlane
from meshd.workers.publish_loop import Sender

SLICE: Final = 64
"""Keys that are compared before the others have a turn: below 1 ms where nothing differs."""

log = structlog.get_logger(__name__)


async def run_reconcile_loop(
    plane: WorkerPlane,
    mesh: Sender,
    interval_s: Callable[[], float],
    *,
    changed: Callable[[], Awaitable[None]] = trio.sleep_forever,
    cpu_clock: Callable[[], float] = time.thread_time,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Make a pass every `interval_s()` seconds until cancelled; `cpu_clock` measures in seconds.

    `changed` returns when the interval may be another one: it then counts for the pause under way too.
    """
    task_status.started()
    while True:
        began = trio.current_time()
        while (left_s := began + interval_s() - trio.current_time()) > 0:
            with trio.move_on_after(left_s):
                await changed()
        await reconcile(plane, mesh, cpu_clock)


async def reconcile(
    plane: WorkerPlane, mesh: Sender, cpu_clock: Callable[[], float] = time.thread_time
) -> None:
    """Make one pass, and note its cost in the plane's `reconcile_stats`."""
    stats = plane.reconcile_stats
    slice_started = cpu_clock()
    cost_s = 0.0
    plane.mark_all(trio.current_time())
    more = True
    while more:
        more = plane.step_sweep(trio.current_time(), SLICE)
        mesh.after_write()
        slice_s = cpu_clock() - slice_started
        cost_s += slice_s
        stats.longest_slice_s = max(stats.longest_slice_s, slice_s)
        await trio.lowlevel.checkpoint()
        slice_started = cpu_clock()
    stats.last_seconds = cost_s
    stats.seconds += cost_s
    if stats.last_repairs:
        log.info(
            "reconciled", repairs=stats.last_repairs, compared=stats.last_compared, ms=round(cost_s * 1000, 1)
        )
