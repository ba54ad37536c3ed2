"""The running daemon as its parts see it: what it is made of, and how it is asked to stop.

Owns no behaviour but leaving. `main` builds it; the API is a view of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from meshd.errors import StorageError

if TYPE_CHECKING:
    from meshd.config import Config
    from meshd.live_settings import LiveSettings
    from meshd.protocol.node import MeshNode
    from meshd.reload import Reloader
    from meshd.runtime.logs import LogControl
    from meshd.runtime.mesh import Mesh
    from meshd.workers.capacity_tracker import CapacityTracker
    from meshd.workers.plane import WorkerPlane


@dataclass(slots=True)
class Daemon:
    """One daemon's parts. `stop` is set when it is to end; `withdrawing`: taking its workers with it."""

    settings: LiveSettings
    mesh: Mesh[MeshNode]
    plane: WorkerPlane
    capacity: CapacityTracker
    log_control: LogControl
    version: str
    reloader: Reloader
    started: bool = False
    stop: trio.Event = field(default_factory=trio.Event)
    withdrawing: bool = False

    @property
    def config(self) -> Config:
        """The settings in force now."""
        return self.settings.config

    async def leave(self, *, keep_workers: bool) -> None:
        """Leave the mesh and stop. Unless they are to be kept, this node's workers are removed everywhere.

        Raises StorageError, and stays with all its workers, if the disk does not take their removal: a peer
        that was away could bring them back, and nobody would be there to remove them again.
        """
        self.withdrawing = not keep_workers
        self.withdraw_if_asked()
        if not await self.mesh.flush() and self.withdrawing:
            self.withdrawing = False
            self.plane.rejoin(trio.current_time())
            raise StorageError(
                "the disk does not take the removal of this node's workers, so it stays in the mesh:"
                " free space and leave again, or leave and keep the workers"
            )
        self.stop.set()

    def withdraw_if_asked(self) -> None:
        """Tombstone this node's workers if it leaves for good; doing so twice changes nothing."""
        if self.withdrawing:
            self.plane.withdraw()
            self.mesh.after_write()
