"""Starts the application for each request, and hands it what arrives.

hypercorn's own channel gives up the turn of the event loop at every piece handed over and every `receive`, so
a short request costs three turns more. Here both sides go on at once wherever they can. The reader still
yields at each read of its socket, and waits for an application that has `max_app_queue_size` pieces to take.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

log = structlog.get_logger("meshd.api")

Send = Callable[[ASGISendEvent | None], Awaitable[None]]


class RequestTasks(TaskGroup):
    """The tasks of one connection."""

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Send
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start the application for a request; returns what hands it a piece of the request."""
        pieces, arriving = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)

        async def receive() -> ASGIReceiveEvent:
            try:
                return arriving.receive_nowait()
            except trio.WouldBlock:
                return await arriving.receive()

        async def answer() -> None:
            try:
                await app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
            except Exception:
                log.exception("api_fault", message="the application failed outside of its own guard")
            finally:
                await send(None)

        async def hand_over(piece: ASGIReceiveEvent) -> None:
            try:
                pieces.send_nowait(piece)
            except trio.WouldBlock:
                await pieces.send(piece)

        self.spawn(answer)
        return hand_over
