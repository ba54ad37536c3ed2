"""Static seeds on virtual time, with a resolver that answers what the test says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import structlog.testing
import trio
import trio.testing

from meshd.discovery import static
from meshd.discovery.found import FIRST_RETRY_S, LOOK_AGAIN_S, LOOKUP_TIMEOUT_S


class Names:
    """A resolver: `answers[host]` is a list of IPs, or an error to raise. Remembers when it was asked."""

    def __init__(self, **answers: list[str] | OSError) -> None:
        self.answers: dict[str, list[str] | OSError] = dict(answers)
        self.asked: list[tuple[float, str]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        await trio.lowlevel.checkpoint()
        self.asked.append((trio.current_time(), host))
        answer = self.answers[host]
        if isinstance(answer, OSError):
            raise answer
        return [f"{ip}:{port}" for ip in answer]


async def follow(
    seeds: Sequence[str], resolve: static.Resolve, for_s: float
) -> list[tuple[float, list[str], str]]:
    found: list[tuple[float, list[str], str]] = []
    start = trio.current_time()
    with trio.move_on_after(for_s):
        await static.run(
            seeds,
            lambda ips, way: found.append((trio.current_time() - start, list(ips), way)),
            resolve=resolve,
        )
    return found


@pytest.mark.req("MSH-1")
async def test_every_address_of_a_name_is_handed_over_and_again_when_it_changes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names = Names(seeds=["10.0.0.1", "10.0.0.2"])
    async with trio.open_nursery() as nursery:
        found: list[list[str]] = []
        nursery.start_soon(
            lambda: static.run(["seeds:7390"], lambda ips, way: found.append(list(ips)), resolve=names)
        )
        await trio.sleep(1)
        assert found == [["10.0.0.1:7390", "10.0.0.2:7390"]]
        names.answers["seeds"] = ["10.0.0.3"]
        await trio.sleep(LOOK_AGAIN_S)
        assert found[1:] == [["10.0.0.3:7390"]]
        nursery.cancel_scope.cancel()


@pytest.mark.req("MSH-1")
async def test_a_seed_that_is_an_address_is_handed_over_without_looking_it_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names = Names()
    assert await follow(["127.0.0.1:1", "[::1]:2"], names, 100) == [
        (0, ["127.0.0.1:1"], "static"),
        (0, ["[::1]:2"], "static"),
    ]
    assert names.asked == []


@pytest.mark.req("MSH-1")
async def test_a_name_that_does_not_resolve_is_tried_for_ever_with_growing_pauses_and_logged_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names = Names(gone=OSError(-2, "Name or service not known"), fine=["10.0.0.9"])
    with structlog.testing.capture_logs() as lines:
        found = await follow(["gone:1", "fine:2"], names, 1000)
    times = [at for at, host in names.asked if host == "gone"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:3] == pytest.approx([FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S])
    assert max(pauses) == pytest.approx(LOOK_AGAIN_S)
    assert len(times) > 1000 / LOOK_AGAIN_S
    assert [(line["event"], line["cause"]) for line in lines] == [
        ("discovery_failed", "Name or service not known")
    ]
    assert len(found) >= 1000 // LOOK_AGAIN_S


async def test_a_resolver_that_never_answers_counts_as_failed_and_recovery_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    start = trio.current_time()

    async def resolve(host: str, port: int) -> list[str]:
        if trio.current_time() < start + 5:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return [f"10.0.0.1:{port}"]

    with structlog.testing.capture_logs() as lines:
        found = await follow(["slow:1"], resolve, 20)
    assert [at for at, _, _ in found] == pytest.approx([LOOKUP_TIMEOUT_S + FIRST_RETRY_S])
    assert [line["event"] for line in lines] == ["discovery_failed", "discovery_recovered"]


async def test_the_systems_resolver_knows_localhost() -> None:
    assert "127.0.0.1:80" in await static.resolve_by_system("localhost", 80)
