"""`POST /snapshot`: what this node's disk holds, as one file, while the daemon runs.

The database is read in one transaction beside the daemon's writes, so the file shows one moment, and it
holds everything that was acknowledged before the request. Reading and packing happen in threads; the loop
only passes the pieces on. One at a time, since the whole store is in memory meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import trio
from starlette.responses import Response

from meshd.errors import StorageError, Unavailable
from meshd.storage import read_offline, snapshot_chunks

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from meshd.api.table import Call


class SnapshotAnswer(Response):
    """The pieces of a snapshot, each made in a thread when the one before has gone out."""

    media_type = "application/octet-stream"

    def __init__(self, chunks: Iterator[bytes], name: str, ended: Callable[[], None]) -> None:
        """`name` is offered as the file's name; `ended` is called when it is sent or broken off."""
        self._chunks = chunks
        self._ended = ended
        # No `content`: there is no length to announce, the transfer is chunked.
        self.status_code = 200
        self.background = None
        self.init_headers({"content-disposition": f'attachment; filename="{name}"'})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. A client can tell a whole one by its checksum."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while (chunk := await trio.to_thread.run_sync(next, self._chunks, b"")) != b"":
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._ended()


async def save_snapshot(call: Call) -> Response:
    """Answer `POST /snapshot`."""
    api = call.api
    if api.saving_snapshot:
        raise Unavailable("a snapshot is being saved already; try again when it is done")
    if not await api.daemon.mesh.flush():
        raise StorageError("the disk refuses writes, so a snapshot would lack the newest ones; see the log")
    node = api.daemon.config.node
    api.saving_snapshot = True
    try:
        chunks = await trio.to_thread.run_sync(_chunks, node.data_dir, api.wall_ms())
    except BaseException:
        api.saving_snapshot = False
        raise
    return SnapshotAnswer(
        chunks, f"meshd-{node.name}.snapshot", lambda: setattr(api, "saving_snapshot", False)
    )


def _chunks(data_dir: Path, taken_ms: int) -> Iterator[bytes]:
    return snapshot_chunks(read_offline(data_dir), taken_ms)
