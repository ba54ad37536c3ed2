"""Takes in what came from the mesh: keys whose visible entry changed, members whose state changed.

Rules it keeps: a few changes are taken in at once, in the mesh's own callback, so that a worker is visible
here as soon as its record has arrived; many are taken in by slices, between which everybody else has a turn,
so that ten thousand workers that arrive together hold nothing up. The marks of the plane carry no values, so
no queue grows with the number of messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import trio

from meshd.workers.plane import WorkerPlane
from meshd.workers.publish_loop import Sender

SLICE: Final = 64
"""Keys that are taken in before the others have a turn: some 3 ms."""


class MemberNews(Protocol):
    """A member that is new or changed its state."""

    @property
    def name(self) -> str:
        """Whose state it is."""


class Mesh(Sender, Protocol):
    """The part of the mesh handle that is needed here."""

    def subscribe_keys(self, callback: Callable[[tuple[str, ...]], None]) -> None:
        """Call with every set of keys whose visible value changed."""

    def subscribe_members(self, callback: Callable[[MemberNews], None]) -> None:
        """Call when a member is new or changed its state."""


async def run_inbound_loop(
    plane: WorkerPlane, mesh: Mesh, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Take in what the plane is told of, until cancelled; started once what was there is taken in."""
    woken = trio.Event()

    def keys_changed(keys: tuple[str, ...]) -> None:
        if plane.take_in(keys, trio.current_time()):
            woken.set()

    def member_changed(change: MemberNews) -> None:
        plane.owner_changed(change.name, trio.current_time())
        woken.set()

    mesh.subscribe_keys(keys_changed)
    mesh.subscribe_members(member_changed)
    plane.on_wake(lambda: woken.set())
    started = False
    while True:
        woken = trio.Event()
        while plane.step_news(trio.current_time(), SLICE):
            mesh.after_write()
            await trio.lowlevel.checkpoint()
        mesh.after_write()
        if not started:
            started = True
            task_status.started()
        await woken.wait()
