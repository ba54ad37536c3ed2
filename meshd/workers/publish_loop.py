"""Hands what the worker plane wrote to the mesh, calls the plane at its deadlines, and logs what it notices.

Publishing itself happens inside each command and check result, in the step that changes the worker; what is
left for this loop is to have it sent where no API call does so, and to keep the time: drained workers, the
end of the startup grace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from meshd.workers.plane import WorkerPlane

log = structlog.get_logger(__name__)


class Sender(Protocol):
    """The part of the mesh handle that is needed here."""

    def after_write(self) -> None:
        """Have what synchronous calls wrote sent and stored; cheap when that is nothing."""


async def run_publish_loop(
    plane: WorkerPlane, mesh: Sender, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep the plane's time and send what it wrote, until cancelled."""
    woken = trio.Event()
    plane.on_wake(lambda: woken.set())
    plane.on_notice(_log)
    task_status.started()
    while True:
        woken = trio.Event()
        plane.tick(trio.current_time())
        mesh.after_write()
        deadline = plane.next_tick()
        with trio.move_on_at(float("inf") if deadline is None else deadline):
            await woken.wait()


def _log(level: str, event: str, fields: dict[str, object]) -> None:
    write: Callable[..., object] = getattr(log, level)
    write(event, **fields)
