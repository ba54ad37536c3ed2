"""Byte streams between the nodes of a cluster under trio, which a test can cut between any two of them.

Rules: a cut breaks the connections that stand, as resets do, and lets no new one come about; nothing here
waits by the real clock, and nothing depends on the order of a set.
"""

from __future__ import annotations

import trio
import trio.testing

from meshd.config_address import Address, parse_address
from meshd.runtime.transport import Bound, Link

Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]

WAITING = 256
"""Connections that may wait to be accepted."""


class TrioNetwork:
    """Who listens where, which links stand, and which pairs are cut. Hosts are called as nodes are."""

    def __init__(self, delay_s: float) -> None:
        """`delay_s`: how long a connection takes to come about, in seconds."""
        self.delay_s = delay_s
        self.listening: dict[str, trio.MemorySendChannel[trio.abc.Stream]] = {}
        self.remotes: dict[trio.abc.Stream, str] = {}
        self._links: list[tuple[frozenset[str], Stream, Stream]] = []
        self._cut: dict[frozenset[str], None] = {}
        self._port = 40_000

    def cut(self, a: str, b: str) -> None:
        """Let two hosts not reach each other."""
        pair = frozenset((a, b))
        self._cut[pair] = None
        for ends, near, far in self._links:
            if ends == pair:
                for stream in (near, far):
                    stream.send_stream.close()
                    stream.receive_stream.close()
        self._links = [link for link in self._links if link[0] != pair]

    def heal(self) -> None:
        """Let everybody reach everybody."""
        self._cut.clear()

    def open(self, source: str, target: str) -> Stream:
        """Connect; raises OSError."""
        listening = self.listening.get(target)
        if frozenset((source, target)) in self._cut:
            raise TimeoutError(f"no answer from {target}")
        if listening is None:
            raise ConnectionRefusedError(f"nobody listens at {target}")
        near, far = trio.testing.memory_stream_pair()
        self._port += 1
        self.remotes[far] = str(Address("127.0.0.1", self._port))
        try:
            listening.send_nowait(far)
        except trio.WouldBlock as error:
            raise ConnectionRefusedError(f"{target} accepts nothing") from error
        self._links.append((frozenset((source, target)), near, far))
        return near


class _Listener(trio.abc.Listener[trio.abc.Stream]):
    """The accepting end of one host."""

    def __init__(self, network: TrioNetwork, name: str) -> None:
        send, self._incoming = trio.open_memory_channel[trio.abc.Stream](WAITING)
        self._network, self._name, self._send = network, name, send
        network.listening[name] = send

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next connection; raises trio.ClosedResourceError once closed."""
        return await self._incoming.receive()

    async def aclose(self) -> None:
        """Stop listening."""
        if self._network.listening.get(self._name) is self._send:
            del self._network.listening[self._name]
        self._send.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()


class TrioTransport:
    """One node's access to the network: a `meshd.runtime.transport.Transport`."""

    def __init__(self, network: TrioNetwork, name: str) -> None:
        self._network = network
        self._name = name

    async def listen(self, address: str) -> Bound:
        """Listen at the host's one address."""
        await trio.lowlevel.checkpoint()
        return Bound(address, [_Listener(self._network, self._name)])

    async def connect(self, address: str) -> Link:
        """Connect to a host; raises OSError."""
        await trio.sleep(self._network.delay_s)
        return Link(self._network.open(self._name, parse_address(address).host), address)

    async def welcome(self, stream: trio.abc.Stream) -> Link:
        """Name the remote of an accepted stream."""
        await trio.lowlevel.checkpoint()
        return Link(stream, self._network.remotes.pop(stream))
