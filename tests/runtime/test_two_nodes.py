"""Real nodes under the driver: joined in memory on virtual time, and once over real sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog.testing
import trio
import trio.testing

from crdt.prefixes import Claim, Prefix, PrefixTable, Rule
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.runtime import DirectPersister, Mesh, TcpTransport, Transport
from meshd.runtime.memory import MemoryNetwork, MemoryTransport
from meshd.storage import MemoryDisk, MemoryStorage

PREFIXES = PrefixTable(
    Prefix("worker:", Rule.SINGLE_WRITER, lambda owner, key, value: Claim.OWN),
    Prefix("config:", Rule.MULTI_WRITER),
)


@dataclass
class Place:
    """One node and what it left on its disk."""

    name: str
    transport: Transport
    disk: MemoryDisk = field(default_factory=MemoryDisk)
    keys: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def running(self, bind: str, *join: str, cluster: str = "c") -> AsyncIterator[Mesh[MeshNode]]:
        storage = MemoryStorage(self.disk, node_name=self.name)
        state = storage.load()
        rng = random.Random(f"{self.name} {self.disk.transactions}")
        settings = NodeSettings(self.name, cluster=cluster)
        node = MeshNode(
            settings, PREFIXES, rng, trio.current_time(), lambda: 1_000_000, state.logs, state.meta
        )
        mesh = Mesh(node, self.transport, DirectPersister(storage))
        mesh.subscribe_keys(self.keys.update)
        async with trio.open_nursery() as nursery:
            await nursery.start(mesh.run, bind)
            mesh.join(join)
            yield mesh
            nursery.cancel_scope.cancel()
        storage.close()


def value_at(mesh: Mesh[MeshNode], key: str) -> bytes | None:
    entry = mesh.node.visible(key)
    return None if entry is None else entry.value


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Wait on virtual time until the callable is true."""
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - whatever event brings the outcome about
            await trio.sleep(0.01)


@pytest.mark.req("MSH-3")
async def test_a_write_on_one_node_is_seen_on_the_other_and_survives_its_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    a, b = (Place(name, MemoryTransport(network)) for name in "ab")
    async with b.running("10.0.0.2:1") as on_b:
        async with a.running("10.0.0.1:1", "10.0.0.2:1") as on_a:
            await until(lambda: on_a.node.owner_state("b") == on_b.node.owner_state("a") == "alive")
            on_a.node.put("worker:1", b"one")
            on_a.after_write()
            await until(lambda: value_at(on_b, "worker:1") == b"one", within_s=0.1)
            assert b.keys == {"worker:1"}
            await on_a.leave(withdrawn=False)
            await until(lambda: on_b.node.owner_state("a") == "left", within_s=0.1)
            assert value_at(on_b, "worker:1") == b"one"
        async with a.running("10.0.0.1:1", "10.0.0.2:1") as on_a:
            assert value_at(on_a, "worker:1") == b"one"
            await until(lambda: on_b.node.owner_state("a") == "alive")
            on_a.node.delete("worker:1")
            on_a.after_write()
            await until(lambda: value_at(on_b, "worker:1") is None, within_s=0.1)


@pytest.mark.req("MSH-4")
async def test_a_cut_link_heals_and_what_was_written_meanwhile_arrives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    a, b = (Place(name, MemoryTransport(network)) for name in "ab")
    async with b.running("10.0.0.2:1") as on_b, a.running("10.0.0.1:1", "10.0.0.2:1") as on_a:
        await until(lambda: on_a.node.owner_state("b") == on_b.node.owner_state("a") == "alive")
        for address in ("10.0.0.1:1", "10.0.0.2:1"):
            network.cut(address)
        for number in range(100):
            on_a.node.put(f"worker:{number}", b"a")
            on_b.node.put(f"worker:{number + 100}", b"b")
        on_a.after_write()
        on_b.after_write()
        await until(lambda: on_a.node.owner_state("b") == on_b.node.owner_state("a") == "down")
        for address in ("10.0.0.1:1", "10.0.0.2:1"):
            network.heal(address)
        await until(lambda: value_at(on_b, "worker:99") == b"a" and value_at(on_a, "worker:199") == b"b")


@pytest.mark.req("MSH-6")
async def test_a_node_of_another_cluster_is_refused_with_a_line_on_both_sides(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    a, b = (Place(name, MemoryTransport(network)) for name in "ab")
    with structlog.testing.capture_logs() as lines:
        async with (
            b.running("10.0.0.2:1", cluster="other") as on_b,
            a.running("10.0.0.1:1", "10.0.0.2:1") as on_a,
        ):
            await trio.sleep(10)
            assert on_a.node.owner_state("b") == on_b.node.owner_state("a") == "unknown"
    told = [line for line in lines if "cluster" in str(line)]
    assert len(told) >= 2


@pytest.mark.req("MSH-3")
async def test_a_write_crosses_a_real_socket() -> None:
    network = TcpTransport()
    a, b = Place("a", network), Place("b", network)
    with trio.fail_after(20):
        async with b.running("127.0.0.1:0") as on_b, a.running("127.0.0.1:0", on_b.address) as on_a:
            await until(lambda: on_a.node.owner_state("b") == "alive")
            arrived = trio.Event()
            on_b.subscribe_keys(lambda keys: arrived.set())
            on_a.node.put("worker:1", b"one")
            on_a.after_write()
            await arrived.wait()
            assert value_at(on_b, "worker:1") == b"one"
            assert await on_a.flush()
