"""DNS discovery.

Its rhythm on virtual time with made-up answers, and dnspython against a tiny server on loopback.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import dns.asyncresolver
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
import trio.testing

from meshd.discovery import dns as discovery
from meshd.discovery.dns import DnsLookup, LookupFailed, Service
from meshd.discovery.found import LOOK_AGAIN_S, SHORTEST_LOOK_S


class Zone:
    """A `Lookup` with made-up records; `life_s` is the life time of each answer."""

    def __init__(self, life_s: float = 20.0) -> None:
        self.hosts: dict[str, list[str]] = {}
        self.srv: dict[str, list[Service]] = {}
        self.life_s = life_s
        self.asked = 0

    async def addresses(self, host: str) -> tuple[list[str], float]:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if host not in self.hosts:
            raise LookupFailed(f"{host} does not exist")
        return self.hosts[host], self.life_s

    async def services(self, name: str) -> tuple[list[Service], float]:
        await trio.lowlevel.checkpoint()
        if name not in self.srv:
            raise LookupFailed(f"{name} does not exist")
        return self.srv[name], self.life_s


async def follow(names: Sequence[str], zone: Zone, for_s: float) -> list[list[str]]:
    found: list[list[str]] = []
    with trio.move_on_after(for_s):
        await discovery.run(names, lambda ips, way: found.append([way, *ips]), lookup=zone)
    return found


@pytest.mark.req("MSH-1")
async def test_a_host_name_gives_all_its_addresses_with_the_port(
    autojump_clock: trio.testing.MockClock,
) -> None:
    zone = Zone()
    zone.hosts["mesh.example"] = ["10.0.0.1", "2001:db8::1"]
    assert await follow(["mesh.example:7390"], zone, 1) == [["dns", "10.0.0.1:7390", "[2001:db8::1]:7390"]]


@pytest.mark.req("MSH-1")
async def test_a_service_name_gives_the_hosts_and_ports_of_its_records_and_a_dead_one_hides_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    zone = Zone()
    zone.srv["_meshd._tcp.example"] = [Service("a", 1), Service("dead", 2), Service("b", 3), Service("a", 1)]
    zone.hosts |= {"a": ["10.0.0.1"], "b": ["10.0.0.2", "10.0.0.3"]}
    assert await follow(["_meshd._tcp.example"], zone, 1) == [
        ["dns", "10.0.0.1:1", "10.0.0.2:3", "10.0.0.3:3"]
    ]


@pytest.mark.req("MSH-1")
@pytest.mark.parametrize(
    ("life_s", "pause_s"), [(20.0, 20.0), (0.0, SHORTEST_LOOK_S), (86_400.0, LOOK_AGAIN_S)]
)
async def test_names_are_looked_up_again_when_their_answer_expires_within_bounds(
    autojump_clock: trio.testing.MockClock, life_s: float, pause_s: float
) -> None:
    zone = Zone(life_s)
    zone.hosts["mesh"] = ["10.0.0.1"]
    await follow(["mesh:1"], zone, pause_s * 10 + 1)
    assert zone.asked == 11


@pytest.mark.req("MSH-1")
async def test_a_name_that_appears_later_is_found(autojump_clock: trio.testing.MockClock) -> None:
    zone = Zone()
    async with trio.open_nursery() as nursery:
        found: list[list[str]] = []
        nursery.start_soon(
            lambda: discovery.run(["late:1"], lambda ips, way: found.append(list(ips)), lookup=zone)
        )
        await trio.sleep(100)
        assert found == []
        zone.hosts["late"] = ["10.0.0.7"]
        await trio.sleep(LOOK_AGAIN_S + 1)
        assert found[0] == ["10.0.0.7:1"]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def name_server(*records: str) -> AsyncIterator[DnsLookup]:
    """A DNS server on loopback with `name ttl kind data` records, and a lookup that asks it."""
    rrsets = [
        dns.rrset.from_text(name, int(ttl), "IN", kind, data)
        for name, ttl, kind, data in map(_split, records)
    ]

    async def serve(sock: trio.socket.SocketType) -> None:
        while True:
            wire, client = await sock.recvfrom(4096)
            query = dns.message.from_wire(wire)
            answer = dns.message.make_response(query)
            question = query.question[0]
            answer.answer = [r for r in rrsets if (r.name, r.rdtype) == (question.name, question.rdtype)]
            if not any(r.name == question.name for r in rrsets):
                answer.set_rcode(dns.rcode.NXDOMAIN)
            await sock.sendto(answer.to_wire(), client)

    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = sock.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, sock)
            yield DnsLookup(resolver)
            nursery.cancel_scope.cancel()


def _split(record: str) -> tuple[str, str, str, str]:
    name, ttl, kind, data = record.split(" ", 3)
    return name, ttl, kind, data


@pytest.mark.req("MSH-1")
async def test_real_answers_are_read_with_their_life_times() -> None:
    async with name_server(
        "mesh.example. 30 A 10.0.0.1",
        "mesh.example. 12 AAAA 2001:db8::7",
        "_meshd._tcp.example. 9 SRV 0 0 7390 mesh.example.",
        "_gone._tcp.example. 9 SRV 0 0 0 .",
    ) as lookup:
        assert await lookup.addresses("mesh.example") == (["10.0.0.1", "2001:db8::7"], 12.0)
        assert await lookup.services("_meshd._tcp.example") == ([Service("mesh.example", 7390)], 9.0)
        assert (await lookup.services("_gone._tcp.example"))[0] == []
        with pytest.raises(LookupFailed, match="nowhere"):
            await lookup.addresses("nowhere.example")
