"""What the API needs of the daemon: the narrow side of the seam, so that tests can stand in for the rest.

Only names and types live here. Everything is called on the trio thread; nothing but `flush` and `leave`
awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import trio

    from meshd.config import Config
    from meshd.live_settings import LiveSettings
    from meshd.protocol.effects import MemberChanged
    from meshd.protocol.node import MeshNode
    from meshd.reload import Reloader
    from meshd.workers.capacity_tracker import CapacityTracker
    from meshd.workers.plane import WorkerPlane


class MeshView(Protocol):
    """The mesh handle."""

    @property
    def node(self) -> MeshNode:
        """The node, for its read models and for leaving."""

    def after_write(self) -> None:
        """Send what a synchronous write left to be sent."""

    async def flush(self) -> bool:
        """Return once everything written before the call is on disk; False if the disk refuses it."""

    def subscribe_members(self, callback: Callable[[MemberChanged], None]) -> None:
        """Call `callback` when a member's state changes."""

    def subscribe_keys(self, callback: Callable[[tuple[str, ...]], None]) -> None:
        """Call `callback` when visible keys change, after the workers' own follower of them."""

    def storage_status(self) -> dict[str, object]:
        """How the disk is: `ok`, `pending`, `transactions`, `last_error`."""

    def add_addresses(self, addresses: Iterable[str], source: str) -> None:
        """Dial these `host:port`."""


class LogControl(Protocol):
    """Changes the log's level at run time."""

    def set_level(self, level: str) -> None:
        """Log from `level` on; raises ValueError for an unknown one."""


class Daemon(Protocol):
    """The daemon that this API is a view of."""

    @property
    def config(self) -> Config:
        """Its settings, as they are in force now."""

    @property
    def settings(self) -> LiveSettings:
        """The settings that change while it runs."""

    @property
    def reloader(self) -> Reloader:
        """Reads its files again."""

    @property
    def mesh(self) -> MeshView:
        """Its handle on the mesh."""

    @property
    def plane(self) -> WorkerPlane:
        """Its workers."""

    @property
    def capacity(self) -> CapacityTracker:
        """What they can take."""

    @property
    def log_control(self) -> LogControl:
        """The level of its log."""

    @property
    def version(self) -> str:
        """The version of meshd."""

    @property
    def started(self) -> bool:
        """Whether the store is loaded and both the mesh and the API listen."""

    @property
    def stop(self) -> trio.Event:
        """Set when it is to stop."""

    async def leave(self, *, keep_workers: bool) -> None:
        """Take this node out of the mesh; its workers are withdrawn unless they are to be kept."""
