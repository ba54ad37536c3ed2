"""A daemon as the API sees it, without sockets and disk, and ways to call its API.

The node, the plane and the capacity tracker are the real ones; `FakeMesh` stands in for what drives them: it
performs a node's effects at once and counts flushes. `Caller` speaks ASGI to the application directly;
`HttpClient` speaks HTTP over a real socket.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h11
import msgspec
import trio

from crdt.prefixes import Prefix, PrefixTable, Rule
from meshd.api.app import create_app
from meshd.api.boundary import Boundary
from meshd.api.guard import Guard
from meshd.api.worker_json import Clock
from meshd.config import Config, load_config
from meshd.config_live import CONFIG_PREFIX
from meshd.live_settings import LiveSettings, plane_settings
from meshd.protocol.effects import KeysChanged, MemberChanged
from meshd.protocol.forgetting import FORGET_PREFIX
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.reload import DeclaredWorkers, Reloader
from meshd.workers.capacity import CapacitySettings
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.plane import WorkerPlane
from meshd.workers.record import PREFIX, classify

WALL_S = 1_700_000_000.0
PREFIXES = PrefixTable(
    Prefix(PREFIX, Rule.SINGLE_WRITER, classify),
    Prefix(CONFIG_PREFIX, Rule.MULTI_WRITER),
    Prefix(FORGET_PREFIX, Rule.MULTI_WRITER),
)


class FakeMesh:
    """The mesh handle over a real node without a driver."""

    def __init__(self, node: MeshNode) -> None:
        self.node = node
        self.flushes = 0
        self.flushed = True
        """What `flush` answers."""
        self.addresses: list[tuple[str, str]] = []
        self.members: list[Callable[[MemberChanged], None]] = []
        self.listeners: list[Callable[[tuple[str, ...]], None]] = []
        self.plane: WorkerPlane | None = None

    def after_write(self) -> None:
        """Perform the effects; changed keys reach those who listen in the same step."""
        while effects := self.node.take_effects():
            for effect in effects:
                if isinstance(effect, KeysChanged):
                    for listener in self.listeners:
                        listener(effect.keys)
        while self.plane is not None and self.plane.step(0.0, 100):
            pass

    async def flush(self) -> bool:
        """Count, and answer as told."""
        await trio.lowlevel.checkpoint()
        self.flushes += 1
        return self.flushed

    def subscribe_members(self, callback: Callable[[MemberChanged], None]) -> None:
        """Remember the callback."""
        self.members.append(callback)

    def subscribe_keys(self, callback: Callable[[tuple[str, ...]], None]) -> None:
        """Remember the callback."""
        self.listeners.append(callback)

    def storage_status(self) -> dict[str, object]:
        """A healthy disk."""
        return {"ok": True}

    def add_addresses(self, addresses: Iterable[str], source: str) -> None:
        """Remember the addresses."""
        self.addresses += [(address, source) for address in addresses]


class FakeLogControl:
    """Remembers the level."""

    level = "info"

    def set_level(self, level: str) -> None:
        """Take on a level; "error" stands for one that is refused."""
        if level == "error":
            raise ValueError("a log level is one of the others")
        self.level = level


class FakeDaemon:
    """Satisfies `meshd.api.backend.Daemon`. `sets` are settings as on the command line.

    It holds what `peer` wrote, as if it had met it in a former life. `reread` is what a reload reads.
    """

    version = "1.2.3"

    def __init__(
        self, folder: Path = Path("/nonexistent"), *sets: str, node: str = "a", peer: FakeDaemon | None = None
    ) -> None:
        self.sets = (f"node.data_dir={folder}", f"node.name={node}", "api.bind=127.0.0.1:0", *sets)
        config = self.reread()
        rng = random.Random(1)
        logs = {} if peer is None else {peer.config.node.name: peer.mesh.node.map.own}
        self.mesh: FakeMesh = FakeMesh(
            MeshNode(NodeSettings(node), PREFIXES, rng, 0.0, lambda: int(WALL_S * 1000), logs)
        )
        store = self.mesh.node.store
        self.plane = WorkerPlane(plane_settings(config), store, rng, 0.0)
        self.capacity = CapacityTracker(self.plane.events, lambda: self.plane.registry, CapacitySettings())
        self.log_control = FakeLogControl()
        self.settings = LiveSettings(config, store, self.plane, self.capacity, self.log_control)
        self.settings.apply()
        self.mesh.listeners += [self.settings.keys_changed, partial(self.plane.keys_changed, now=0.0)]
        self.mesh.plane = self.plane
        declared = DeclaredWorkers(self.plane, store)
        self.reloader = Reloader(self.settings, declared, self.mesh, lambda: self.reread())
        self.started = True
        self.stop = trio.Event()
        self.left: list[bool] = []

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self.settings.config

    def reread(self) -> Config:
        """Read the configuration, of `sets`."""
        return load_config(sets=self.sets, terminal=False)

    async def leave(self, *, keep_workers: bool) -> None:
        """Remember how it was told to leave."""
        await trio.lowlevel.checkpoint()
        self.left.append(keep_workers)


def make_app(daemon: FakeDaemon, guard: Guard | None = None) -> Boundary:
    """The application of a daemon whose day began at WALL_S."""
    began = trio.current_time()
    clock = Clock(trio.current_time, lambda: WALL_S + trio.current_time() - began)
    return create_app(daemon, guard=guard or Guard(), clock=clock)


@dataclass
class Answer:
    """One answer: status, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)

    def expect(self, status: int) -> Answer:
        """Assert the status; shows the body when it differs."""
        assert self.status == status, (self.status, self.body[:500])
        return self


@dataclass
class Caller:
    """Calls an application without a server. `unix` says that requests come over the unix socket."""

    app: Boundary
    unix: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def scope(self, method: str, target: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The ASGI scope of a request."""
        path, _, query = target.partition("?")
        sent = {"host": "127.0.0.1:7391", **self.headers, **headers}
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": None if self.unix else ("127.0.0.1", 50000),
            "server": None if self.unix else ("127.0.0.1", 7391),
        }

    async def call(
        self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request and its whole answer; `body` is JSON unless it is bytes."""
        raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = dict(headers or {})
        if body is not None:
            sent.setdefault("content-length", str(len(raw)))
        waiting = [{"type": "http.request", "body": raw, "more_body": False}]
        answer = Answer(0, {}, b"")

        async def receive() -> Any:
            await trio.lowlevel.checkpoint()
            if waiting:
                return waiting.pop()
            return await trio.sleep_forever()

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        await self.app(self.scope(method, target, sent), receive, send)
        return answer

    async def get(self, target: str) -> Any:
        """The decoded body of a GET that must succeed."""
        return (await self.call("GET", target)).expect(200).json()


@dataclass
class StreamEvent:
    """One Server-Sent Event."""

    kind: str
    id: str | None
    data: Any


class StreamReader:
    """An open `/events` stream over ASGI: run `run` in a nursery, `next` reads events."""

    def __init__(
        self, caller: Caller, target: str = "/events", headers: Mapping[str, str] | None = None
    ) -> None:
        self._caller = caller
        self._scope = caller.scope("GET", target, headers or {})
        self._gone = trio.Event()
        self._writes: list[bytes] = []
        self._news = trio.Event()
        self._buffer = b""
        self.status = 0
        self.ended = False
        self.final_chunk_sent = False
        self.blocked: trio.Event | None = None
        """While set, the client reads nothing: writes wait for it."""
        self.writes: list[bytes] = []
        """All writes so far, as they were made."""

    async def run(self) -> None:
        """Serve the stream until it ends."""
        try:
            await self._caller.app(self._scope, self._receive, self._send)
        finally:
            self.ended = True
            self._news.set()

    def disconnect(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self.final_chunk_sent = not message.get("more_body", False)
        if body := message.get("body", b""):
            self.writes.append(body)
            self._buffer += body
            self._news.set()

    async def raw(self) -> bytes:
        """The next block of the stream, a comment included."""
        while b"\n\n" not in self._buffer:
            if self.ended:
                raise EOFError
            self._news = trio.Event()
            await self._news.wait()
        block, _, self._buffer = self._buffer.partition(b"\n\n")
        return block

    async def next(self, *kinds: str) -> StreamEvent:
        """The next event, of these kinds if any are named."""
        while True:
            block = await self.raw()
            fields = dict(
                line.split(": ", 1) for line in block.decode().split("\n") if not line.startswith(":")
            )
            if "data" in fields and (not kinds or fields["event"] in kinds):
                return StreamEvent(fields["event"], fields.get("id"), msgspec.json.decode(fields["data"]))


class HttpClient:
    """HTTP/1.1 over one connection to a served API."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def tcp(cls, address: str) -> HttpClient:
        """Connect to `host:port`."""
        host, _, port = address.rpartition(":")
        return cls(await trio.open_tcp_stream(host, int(port)))

    @classmethod
    async def unix(cls, path: str) -> HttpClient:
        """Connect to a unix socket."""
        return cls(await trio.open_unix_socket(path))

    async def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole request."""
        sent = {"host": "localhost", **(headers or {})}
        if body:
            sent.setdefault("content-length", str(len(body)))
        data = self._http.send(h11.Request(method=method, target=target, headers=list(sent.items()))) or b""
        if body:
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)

    async def event(self) -> Any:
        """The next h11 event."""
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self.stream.receive_some(65536))

    async def answer(self) -> Answer:
        """Read a whole answer."""
        response = await self.event()
        assert isinstance(response, h11.Response), response
        headers = {name.decode().lower(): value.decode() for name, value in response.headers}
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return Answer(response.status_code, headers, body)

    async def call(
        self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request and its answer."""
        raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        await self.send(method, target, raw, headers)
        return await self.answer()

    async def aclose(self) -> None:
        """Close the connection."""
        await self.stream.aclose()
