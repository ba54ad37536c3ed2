"""The handle on a running node: what loops and the API hold of the mesh.

Reads and writes go to `node` directly, synchronously, on the trio thread; after a write, `after_write`
performs what the write caused, so that it is on its way to the peers before the caller continues. `flush`
waits for the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import trio

from meshd.protocol.effects import MemberChanged
from meshd.runtime.driver import Driver, SansIoNode
from meshd.runtime.limits import LEAVE_S
from meshd.runtime.persister import Persister
from meshd.runtime.transport import Transport

Node = TypeVar("Node", bound=SansIoNode)


class Mesh(Generic[Node]):
    """One node with its driver and its persister. `run` is its life."""

    def __init__(self, node: Node, transport: Transport, persister: Persister) -> None:
        self.node = node
        self._persister = persister
        self._driver = Driver(node, transport, persister)

    async def run(
        self,
        bind: str,
        *,
        advertise: str | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on `bind` and keep the node going until cancelled.

        Starts with the bound address, or OSError.

        `advertise` is the address told to peers where it differs; its port 0 stands for the bound one.
        """
        await self._driver.run(bind, advertise=advertise, task_status=task_status)

    @property
    def address(self) -> str:
        """The `host:port` that is listened on, once `run` has started."""
        return self._driver.address

    def after_write(self) -> None:
        """Perform what synchronous calls to the node caused; cheap when that is nothing."""
        self._driver.dispatch_writes()

    async def flush(self) -> bool:
        """Wait until every write made before is on disk as durably as `store.durability` says.

        False if it refuses.
        """
        self._driver.dispatch_writes()
        return await self._persister.flush()

    def storage_status(self) -> dict[str, object]:
        """`ok`, `pending` (keys that wait for the disk), `transactions`, `last_error`."""
        return self._persister.status()

    def subscribe_keys(self, callback: Callable[[tuple[str, ...]], None]) -> None:
        """Call with every set of keys whose visible value changed.

        Synchronously, and it must not block or raise.
        """
        self._driver.keys_changed.append(callback)

    def subscribe_members(self, callback: Callable[[MemberChanged], None]) -> None:
        """Call when a member is new or changed its state; synchronously, and it must not block or raise."""
        self._driver.member_changed.append(callback)

    def add_addresses(self, addresses: Iterable[str], source: str) -> None:
        """Addresses of possible members were found; `source` says by whom."""
        self.node.add_addresses(addresses, source, trio.current_time())
        self._driver.dispatch()

    def join(self, addresses: Iterable[str]) -> None:
        """Somebody asked to join by these addresses: they are tried at once, and then for ever."""
        self.add_addresses(addresses, "join")

    async def leave(self, withdrawn: bool) -> None:
        """Tell the peers that this node stops, and wait until they are told, at most LEAVE_S.

        `withdrawn`: its workers are gone with it (the caller deleted them); else they await its return.
        """
        self.node.leave(withdrawn, trio.current_time())
        self._driver.dispatch()
        with trio.move_on_after(LEAVE_S):
            await self._driver.sent()
