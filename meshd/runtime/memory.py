"""A transport inside one process, for tests: nodes on a `MemoryNetwork` have made-up addresses.

Works with a mock clock, opens no sockets. A link can be cut as a network does it: connects fail, and open
connections break.
"""

from __future__ import annotations

import trio
import trio.testing

from meshd.config_address import Address, parse_address
from meshd.runtime.transport import Bound, Link

#: The first port given out for port 0, and to the dialling ends.
_FIRST_FREE_PORT = 20_000

_Stream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class MemoryNetwork:
    """The ether: who listens where. Shared by the transports of all nodes of a test."""

    def __init__(self) -> None:
        self._listening: dict[str, trio.MemorySendChannel[trio.abc.Stream]] = {}
        self._links: list[tuple[str, _Stream, _Stream]] = []
        self._cut: set[str] = set()
        self._next_port = _FIRST_FREE_PORT
        self.remotes: dict[trio.abc.Stream, str] = {}

    def free_port(self) -> int:
        """A port that nobody uses on this network."""
        self._next_port += 1
        return self._next_port

    def cut(self, address: str) -> None:
        """Take the listener at `address` off the network: its connections break, new ones fail."""
        self._cut.add(address)
        for at, near, far in self._links:
            if at == address:
                for end in (near, far):
                    end.send_stream.close()
                    end.receive_stream.close()
        self._links = [link for link in self._links if link[0] != address]

    def heal(self, address: str) -> None:
        """Put it back."""
        self._cut.discard(address)

    def open_listener(self, address: str) -> MemoryListener:
        """Listen; raises OSError if the address is taken."""
        if address in self._listening:
            raise OSError(f"{address} is in use")
        send, receive = trio.open_memory_channel[trio.abc.Stream](256)
        self._listening[address] = send
        return MemoryListener(self, address, receive)

    def close_listener(self, address: str) -> None:
        """Stop listening."""
        self._listening.pop(address).close()

    def open_link(self, address: str) -> _Stream:
        """Connect to a listener; raises OSError if nobody listens or the address is cut off."""
        listening = self._listening.get(address)
        if listening is None or address in self._cut:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        near, far = trio.testing.memory_stream_pair()
        self.remotes[far] = str(Address("127.0.0.1", self.free_port()))
        try:
            listening.send_nowait(far)
        except trio.WouldBlock as err:
            raise ConnectionRefusedError(f"{address} accepts nothing") from err
        self._links.append((address, near, far))
        return near


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """The accepting end of one address of a `MemoryNetwork`."""

    def __init__(
        self, network: MemoryNetwork, address: str, incoming: trio.MemoryReceiveChannel[trio.abc.Stream]
    ) -> None:
        self._network = network
        self._address = address
        self._incoming = incoming
        self._open = True

    async def accept(self) -> trio.abc.Stream:
        """Wait for the next connection; raises trio.ClosedResourceError once closed."""
        return await self._incoming.receive()

    async def aclose(self) -> None:
        """Stop listening; connections that were accepted stay."""
        if self._open:
            self._open = False
            self._network.close_listener(self._address)
            self._incoming.close()
        await trio.lowlevel.checkpoint()


class MemoryTransport:
    """One node's access to a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    async def listen(self, address: str) -> Bound:
        """Listen on `host:port`; port 0 picks one."""
        await trio.lowlevel.checkpoint()
        host, port = parse_address(address)
        bound = str(Address(host, port or self._network.free_port()))
        return Bound(bound, [self._network.open_listener(bound)])

    async def connect(self, address: str) -> Link:
        """Connect to `host:port`; raises ConnectionRefusedError."""
        await trio.lowlevel.checkpoint()
        return Link(self._network.open_link(address), address)

    async def welcome(self, stream: trio.abc.Stream) -> Link:
        """Name the remote of an accepted stream."""
        await trio.lowlevel.checkpoint()
        return Link(stream, self._network.remotes.pop(stream))
