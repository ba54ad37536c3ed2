"""Zeroconf: what is announced and what is taken from others; and two real ones that meet on loopback."""

from __future__ import annotations

import uuid

import pytest
import trio

from meshd.config_address import parse_address
from meshd.discovery import zeroconf as discovery
from meshd.discovery.zeroconf import Announcement


def announcement(node: str, cluster: str = "c", bound: str = "127.0.0.1:7390") -> Announcement:
    return Announcement.for_node(node, cluster, "1.0", parse_address(bound))


@pytest.mark.req("MSH-1")
def test_a_node_bound_to_loopback_speaks_on_loopback_only() -> None:
    for bound in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert announcement("a", bound=bound).interfaces == ("127.0.0.1",)
    assert announcement("a", bound="10.1.2.3:1").interfaces is None


def test_the_advertised_address_is_announced_before_the_bound_one_and_never_a_wildcard() -> None:
    bound = parse_address("0.0.0.0:7390")
    shown = Announcement.for_node("a", "c", "1", bound, parse_address("192.0.2.7:9000"))
    assert (shown.addresses, shown.port) == (("192.0.2.7",), 9000)
    named = Announcement.for_node("a", "c", "1", parse_address("10.1.2.3:5"), parse_address("host.example:0"))
    assert (named.addresses, named.port) == (("10.1.2.3",), 5)
    assert "0.0.0.0" not in Announcement.for_node("a", "c", "1", bound).addresses


def test_instance_names_are_unique_per_node_and_cluster_and_fit_a_label() -> None:
    names = {
        announcement(node, cluster).instance for node in ("a" * 63, "a" * 62 + "b") for cluster in ("c", "d")
    }
    assert len(names) == 4
    assert all(len(name.removesuffix("." + discovery.SERVICE_TYPE).encode()) <= 63 for name in names)


@pytest.mark.req("MSH-6")
def test_only_other_nodes_of_the_same_cluster_are_taken() -> None:
    mine = announcement("a")
    assert mine.peers_in(announcement("b", bound="127.0.0.1:7391").service_info()) == ["127.0.0.1:7391"]
    assert mine.peers_in(announcement("b", "other", "127.0.0.1:7391").service_info()) == []
    assert mine.peers_in(mine.service_info()) == []


@pytest.mark.req("MSH-1")
@pytest.mark.slow
async def test_two_nodes_without_any_address_of_each_other_meet_on_loopback() -> None:
    cluster = f"test-{uuid.uuid4()}"
    found: dict[str, set[str]] = {"a": set(), "b": set(), "stranger": set()}
    met = trio.Event()

    def note(finder: str, addresses: set[str]) -> None:
        found[finder] |= addresses
        if found["a"] and found["b"]:
            met.set()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for node, of, port in (
                ("a", cluster, 40_001),
                ("b", cluster, 40_002),
                ("stranger", "other", 40_003),
            ):
                mine = Announcement.for_node(node, of, "1", parse_address(f"127.0.0.1:{port}"))

                def add(addresses: object, way: str, finder: str = node) -> None:
                    assert way == "zeroconf"
                    assert isinstance(addresses, list)
                    note(finder, set(addresses))

                await nursery.start(discovery.run, mine, add)
            await met.wait()
            nursery.cancel_scope.cancel()
    assert found["a"] == {"127.0.0.1:40002"}
    assert found["b"] == {"127.0.0.1:40001"}
    assert not found["stranger"]
