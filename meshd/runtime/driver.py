"""Performs what a sans-I/O node wants: the only place where the node meets sockets, clocks and the disk.

Rules: every input to the node is followed at once, without a checkpoint between, by all effects that it
caused, in their order. The node is called from the trio thread only. A bug that a peer's message sets off
costs that peer its connection; a bug anywhere else ends the daemon, since nobody should run a node whose
state is unknown.

While a durable write is under way (a new generation), no connection sends: what a peer sees must not be
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import structlog
import trio

from meshd.config_address import Address, parse_address
from meshd.protocol.effects import (
    CloseConnection,
    Dial,
    Effect,
    KeysChanged,
    MemberChanged,
    Notice,
    Persist,
    Wake,
)
from meshd.runtime.connection import Connection
from meshd.runtime.doorkeeper import Doorkeeper
from meshd.runtime.limits import (
    DEADLINE_READ_S,
    DIAL_TIMEOUT_S,
    DIALS_AT_ONCE,
    DISK_RETRY_MIN_S,
    FIRST_FRAME_S,
)
from meshd.runtime.notices import NoticeLog
from meshd.runtime.persister import Persister
from meshd.runtime.transport import Link, Transport
from meshd.wire.messages import Message

_log = structlog.get_logger(__name__)

#: A node whose deadline never moves must not spin the loop.
_SHORTEST_TICK_S = 0.001


class SansIoNode(Protocol):
    """What the driver needs of a node; `meshd.protocol.node.MeshNode` is one. `now` is in seconds."""

    address: str
    """The `host:port` at which peers reach the node; the driver sets it once it listens."""

    def connection_opened(self, conn: int, dialled: str | None, remote: str, now: float) -> None:
        """A connection is there; `dialled` is the address it was dialled by, None if it was accepted."""

    def receive(self, conn: int, message: Message, now: float) -> None:
        """A message came."""

    def garbage(self, conn: int, reason: str, now: float) -> None:
        """Bytes came that are no message."""

    def connection_closed(self, conn: int, reason: str, now: float) -> None:
        """The connection is gone."""

    def dial_failed(self, address: str, reason: str, now: float) -> None:
        """A wanted connection did not come about."""

    def add_addresses(self, addresses: Iterable[str], source: str, now: float) -> None:
        """Addresses to try were found."""

    def leave(self, withdrawn: bool, now: float) -> None:
        """This node stops; `withdrawn` with its workers, else for a restart."""

    def next_message(self, conn: int, now: float) -> Message | None:
        """What to send on a connection now."""

    def tick(self, now: float) -> None:
        """Time went by."""

    def next_deadline(self) -> float | None:
        """When to tick next."""

    def take_effects(self) -> list[Effect]:
        """What the inputs since the last call caused."""


class Driver:
    """Runs one node. `run` is its life; `dispatch` after every synchronous use of the node."""

    def __init__(
        self,
        node: SansIoNode,
        transport: Transport,
        persister: Persister,
    ) -> None:
        self.node = node
        self.address = ""
        """The `host:port` that is listened on, once `run` has started."""
        self.keys_changed: list[Callable[[tuple[str, ...]], None]] = []
        self.member_changed: list[Callable[[MemberChanged], None]] = []
        self._transport = transport
        self._persister = persister
        self._connections: dict[int, Connection] = {}
        self._next_number = 1
        self._doorkeeper = Doorkeeper()
        self._notices = NoticeLog(structlog.get_logger("meshd.mesh"))
        self._dials = trio.CapacityLimiter(DIALS_AT_ONCE)
        self._nursery: trio.Nursery | None = None
        self._dispatching = False
        self._ticker: trio.CancelScope | None = None
        self._deadline_read_at = -float("inf")
        self._hold: trio.Event | None = None
        self._durable_writes = 0

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def run(
        self,
        bind: str,
        *,
        advertise: str | None = None,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on `bind` and drive the node until cancelled; starts with the address bound, or OSError.

        `advertise` is the address told to peers where it differs; its port 0 stands for the bound one.
        """
        bound = await self._transport.listen(bind)
        self.address = bound.address
        self.node.address = _advertised(bound.address, advertise)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._tick)
                nursery.start_soon(trio.serve_listeners, self._accepted, list(bound.listeners))
                task_status.started(bound.address)
                self.dispatch()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                for listener in bound.listeners:
                    with trio.CancelScope(shield=True):
                        await listener.aclose()

    def dispatch(self) -> None:
        """Perform all effects that wait, after an input; cheap when there are none.

        Called from inside an effect it leaves the work to the outer call; before `run` it leaves it to
        `run`.
        """
        if self._dispatching or self._nursery is None:
            return
        if self._perform_all():
            self._set_ticker()
        else:
            self._read_deadline_soon()

    def dispatch_writes(self) -> None:
        """As `dispatch`, after this node's own writes; those without effects have moved no deadline."""
        if not self._dispatching and self._nursery is not None and self._perform_all():
            self._set_ticker()

    def _perform_all(self) -> bool:
        """Perform the effects that wait, also those caused meanwhile; returns whether there were any."""
        acted = False
        self._dispatching = True
        try:
            while effects := self.node.take_effects():
                acted = True
                for effect in effects:
                    self._perform(effect)
        finally:
            self._dispatching = False
        return acted

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Wake(number):
                connection = self._connections.get(number)
                if connection is not None:
                    connection.poke()
            case Persist(ops, durable):
                self._persister.submit(ops, durable)
                if durable:
                    self._hold_sends()
            case KeysChanged(keys):
                for keys_callback in self.keys_changed:
                    keys_callback(keys)
            case MemberChanged():
                for member_callback in self.member_changed:
                    member_callback(effect)
            case CloseConnection(number, reason):
                connection = self._connections.get(number)
                if connection is not None:
                    connection.close(reason)
            case Dial(address):
                assert self._nursery is not None
                self._nursery.start_soon(self._dial, address)
            case Notice(level, event, fields):
                self._notices.write(level, event, fields, trio.current_time())

    async def sent(self) -> None:
        """Wait until every connection has sent all that its node had to say; the caller bounds it."""
        for connection in list(self._connections.values()):
            await connection.sent()

    async def _tick(self) -> None:
        while True:
            deadline = self._read_deadline()
            if deadline > trio.current_time():
                with trio.CancelScope(deadline=deadline) as self._ticker:
                    await trio.sleep_forever()
                self._ticker = None
            else:
                self.node.tick(trio.current_time())
                self.dispatch()
                await trio.sleep(_SHORTEST_TICK_S)

    def _read_deadline(self) -> float:
        self._deadline_read_at = trio.current_time()
        deadline = self.node.next_deadline()
        return float("inf") if deadline is None else deadline

    def _set_ticker(self) -> None:
        """Something was done, so the node's deadline may have moved.

        Reading it costs something with many peers, so in a burst of inputs it is read once in a while only.
        """
        if self._ticker is None:
            return
        if trio.current_time() < self._deadline_read_at + DEADLINE_READ_S:
            self._read_deadline_soon()
            return
        deadline = self._read_deadline()
        if deadline != self._ticker.deadline:
            self._ticker.deadline = deadline

    def _read_deadline_soon(self) -> None:
        if self._ticker is not None:
            soon = trio.current_time() + DEADLINE_READ_S
            self._ticker.deadline = min(soon, self._ticker.deadline)

    async def _accepted(self, stream: trio.abc.Stream) -> None:
        try:
            with trio.fail_after(FIRST_FRAME_S):
                link = await self._transport.welcome(stream)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as err:
            self._notice("connection_not_established", reason=str(err) or "too slow")
            await trio.aclose_forcefully(stream)
            return
        refusal = self._doorkeeper.admit(link.remote)
        if refusal is not None:
            self._notice("connection_refused", remote=link.remote, reason=refusal)
            await trio.aclose_forcefully(stream)
            return
        try:
            await self._serve(link, None)
        finally:
            self._doorkeeper.leave(link.remote)

    async def _dial(self, address: str) -> None:
        try:
            async with self._dials:
                with trio.fail_after(DIAL_TIMEOUT_S):
                    link = await self._transport.connect(address)
        except trio.TooSlowError:
            self._dial_failed(address, f"no answer within {DIAL_TIMEOUT_S:g} s")
        except (OSError, ValueError) as err:
            self._dial_failed(address, str(err))
        else:
            await self._serve(link, address)

    def _dial_failed(self, address: str, reason: str) -> None:
        self.node.dial_failed(address, reason, trio.current_time())
        self.dispatch()

    async def _serve(self, link: Link, dialled: str | None) -> None:
        """One connection, from its opening to its end."""
        number = self._next_number
        self._next_number += 1
        connection = self._connections[number] = Connection(
            number,
            link,
            received=self._received,
            undecodable=self._undecodable,
            next_message=self._next_message,
            may_send=self._sends_held,
        )
        reason = "stopped"
        self.node.connection_opened(number, dialled, link.remote, trio.current_time())
        self.dispatch()
        try:
            reason = await connection.run()
        finally:
            del self._connections[number]
            self.node.connection_closed(number, reason, trio.current_time())
            self.dispatch()

    def _received(self, number: int, message: Message) -> None:
        try:
            self.node.receive(number, message, trio.current_time())
        except Exception:
            _log.exception("bug_in_receive", message_type=type(message).__name__, hint="please report this")
            self._connections[number].close("an error of ours, see the log")
        self.dispatch()

    def _undecodable(self, number: int, reason: str) -> None:
        self.node.garbage(number, reason, trio.current_time())
        self.dispatch()

    def _next_message(self, number: int) -> Message | None:
        message = self.node.next_message(number, trio.current_time())
        self.dispatch()
        return message

    def _hold_sends(self) -> None:
        self._durable_writes += 1
        if self._hold is None:
            assert self._nursery is not None
            self._hold = trio.Event()
            self._nursery.start_soon(self._release_sends)

    async def _release_sends(self) -> None:
        covered = 0
        while covered != self._durable_writes:
            wanted = self._durable_writes
            if await self._persister.flush():
                covered = wanted
            else:
                await trio.sleep(DISK_RETRY_MIN_S)
        hold, self._hold = self._hold, None
        assert hold is not None
        hold.set()

    def _sends_held(self) -> trio.Event | None:
        return self._hold

    def _notice(self, event: str, **fields: object) -> None:
        self._notices.write("warning", event, fields, trio.current_time())


def _advertised(bound: str, advertise: str | None) -> str:
    if advertise is None:
        return bound
    wanted = parse_address(advertise)
    return str(wanted if wanted.port else Address(wanted.host, parse_address(bound).port))
