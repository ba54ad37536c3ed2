"""A node that says what it likes: a raw client of the mesh protocol, for tests of what others make of it.

`Intruder` greets every node of a mesh under a name of its own, stays alive over its connections, and sends
any log under any owner's name. It checks nothing and keeps no rule.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from typing import Self

from crdt.owner_log import OwnerLog
from crdt.types import Have
from meshd.wire.errors import WireError
from meshd.wire.framing import FrameDecoder, encode_frame
from meshd.wire.limits import PAGE_ENTRIES
from meshd.wire.messages import (
    Begin,
    Data,
    Heartbeat,
    Hello,
    Leave,
    MemberRow,
    Message,
    Ping,
    Pong,
    Reject,
    VectorRow,
)
from tests.support.processes import eventually, free_port

_BEAT_S = 0.2


class Intruder:
    """A member called `name`. `log` is its own log: append to it, then `publish`."""

    def __init__(self, name: str, cluster: str, targets: Iterable[str]) -> None:
        self.name = name
        self.log = OwnerLog(name, (1, 1))
        self.rejected: list[str] = []
        self._cluster = cluster
        self._address = f"127.0.0.1:{free_port()}"
        self._targets = tuple(targets)
        self._links: list[_Link] = []
        self._beats = 0
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"intruder {name}", daemon=True)

    def __enter__(self) -> Self:
        for target in self._targets:
            self._links.append(_Link(self, target))
        eventually(lambda: all(link.peer for link in self._links), "every node greets the intruder")
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._heart.join(5.0)
        for link in self._links:
            link.send(Leave(withdrawn=True))
            link.close()

    def hello(self) -> Hello:
        """Its greeting."""
        return Hello(1, 1, self._cluster, self.name, self.log.gen[1], self._address, "", "0")

    def knows(self, owner: str) -> Have:
        """The newest state of a node's log that any node has told of."""
        return max(link.told[owner] for link in self._links if owner in link.told)

    def publish(self) -> None:
        """Send its own log to every node."""
        self.send(self.log)

    def send(self, log: OwnerLog, *, offer: bool = False, to: Iterable[str] | None = None) -> None:
        """Send a whole log, whoever's it is said to be, to all nodes or to those of these names."""
        names = None if to is None else set(to)
        for link in self._links:
            if names is None or link.peer in names:
                link.transfer(log, offer)

    def _beat(self) -> None:
        while not self._stop.is_set():
            self._beats += 1
            row = MemberRow(self.name, self.log.gen[1], self._beats, 0, self._address, "", "0")
            log = self.log
            have = Have(log.gen, log.max, log.floor, log.hash, log.gen, 0)
            rows = (VectorRow(self.name, have),) if log.max else ()
            peers = tuple(sorted(link.peer for link in self._links))
            hlc = int(time.time() * 1000) << 16
            for link in self._links:
                link.send(Heartbeat(hlc, link.done, 0, rows, (row,), peers, 0))
            self._stop.wait(_BEAT_S)


class _Link:
    """One connection, read by a thread of its own."""

    def __init__(self, intruder: Intruder, target: str) -> None:
        self.peer = ""
        self.done = 0
        self.told: dict[str, Have] = {}
        self._intruder = intruder
        self._transfers = 0
        self._lock = threading.Lock()
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=30.0)
        self.send(intruder.hello())
        threading.Thread(target=self._read, name=f"intruder at {target}", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send one message; a connection that is closed takes it silently."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(encode_frame(message))

    def transfer(self, log: OwnerLog, offer: bool) -> None:
        """Send a whole log."""
        self._transfers += 1
        self.send(Begin(self._transfers, log.head(), 0, True, offer, 0))
        entries = tuple(log.entries.values())
        for start in range(0, max(1, len(entries)), PAGE_ENTRIES):
            page = entries[start : start + PAGE_ENTRIES]
            self.send(Data(self._transfers, start + PAGE_ENTRIES >= len(entries), page))

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self) -> None:
        decoder = FrameDecoder()
        with contextlib.suppress(OSError, WireError):
            while data := self._socket.recv(65536):
                for message in decoder.feed(data):
                    self._heard(message)

    def _heard(self, message: Message) -> None:
        match message:
            case Hello():
                self.peer = message.node
            case Reject():
                self._intruder.rejected.append(message.text)
            case Ping(token):
                self.send(Pong(token))
            case Heartbeat():
                self.told.update({row.owner: row.have for row in message.rows})
                if message.token:
                    self.send(Pong(message.token))
            case Data(last=True):
                self.done += 1
            case _:
                pass
