"""A sans-I/O node that does what a test tells it, and remembers what it was told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import trio

from meshd.protocol.effects import CloseConnection, Dial, Effect, Wake
from meshd.wire.messages import Message


class FakeNode:
    """Satisfies `meshd.runtime.SansIoNode`.

    Calls are recorded in `calls` as tuples that begin with the method's name.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.effects: list[Effect] = []
        self.outgoing: dict[int, deque[Message]] = {}
        self.deadline: float | None = None
        self.ticks: list[float] = []
        self.on_receive: Callable[[int, Message], None] | None = None
        self.on_tick: Callable[[], None] | None = None
        self.news = trio.Event()
        self.address = ""

    def named(self, name: str) -> list[tuple[object, ...]]:
        """The recorded calls of one method, without its name."""
        return [call[1:] for call in self.calls if call[0] == name]

    async def wait_for(self, name: str, count: int = 1) -> tuple[object, ...]:
        """Wait until a method was called `count` times; returns that call's arguments."""
        while len(self.named(name)) < count:
            self.news = trio.Event()
            await self.news.wait()
        return self.named(name)[count - 1]

    def say(self, conn: int, *messages: Message) -> None:
        """Have messages ready for a connection; `dispatch` must follow."""
        self.outgoing.setdefault(conn, deque()).extend(messages)
        self.effects.append(Wake(conn))

    def dial(self, address: str) -> None:
        """Want a connection; `dispatch` must follow."""
        self.effects.append(Dial(address))

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        self.news.set()

    def connection_opened(self, conn: int, dialled: str | None, remote: str, now: float) -> None:
        self._note("connection_opened", conn, dialled, remote)

    def receive(self, conn: int, message: Message, now: float) -> None:
        self._note("receive", conn, message)
        if self.on_receive is not None:
            self.on_receive(conn, message)

    def garbage(self, conn: int, reason: str, now: float) -> None:
        self._note("garbage", conn, reason)
        self.effects.append(CloseConnection(conn, reason))

    def connection_closed(self, conn: int, reason: str, now: float) -> None:
        self._note("connection_closed", conn, reason)

    def dial_failed(self, address: str, reason: str, now: float) -> None:
        self._note("dial_failed", address, reason)

    def add_addresses(self, addresses: Iterable[str], source: str, now: float) -> None:
        self._note("add_addresses", tuple(addresses), source)

    def leave(self, withdrawn: bool, now: float) -> None:
        self._note("leave", withdrawn)

    def next_message(self, conn: int, now: float) -> Message | None:
        waiting = self.outgoing.get(conn)
        return waiting.popleft() if waiting else None

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self.deadline = None
        if self.on_tick is not None:
            self.on_tick()

    def next_deadline(self) -> float | None:
        return self.deadline

    def take_effects(self) -> list[Effect]:
        effects, self.effects = self.effects, []
        return effects
