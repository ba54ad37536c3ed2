from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Meshctl
from tests.support.fake_api import Answer, FakeApi, Request


def entry(key: str, **more: Any) -> dict[str, Any]:
    value = {"v": 1, "spec": {"url": f"http://{key[-1]}:1"}, "status": "ready", "owner": "a", "revision": 1}
    return {
        "key": key,
        "owner": "a",
        "gen": "1.00000000000000aa",
        "seq": 4,
        "hlc": 115803166800384001,
        "age_s": 65.2,
        "tombstone": False,
        "visible": not more.get("tombstone", False),
        "value": value,
        **more,
    }


@pytest.mark.req("CTL-2", "CTL-3")
def test_entries_are_listed_with_owner_seq_age_and_what_they_say(daemon: FakeApi, meshctl: Meshctl) -> None:
    found = [entry("worker:a"), entry("worker:b", tombstone=True, value=None), entry("x:c", value={"n": [1]})]
    daemon.on("GET", "/mesh/store", {"entries": found})
    done = meshctl("kv", "ls", "--tombstones")
    assert daemon.requests[-1].query == {"tombstones": ["1"], "limit": ["1000"]}
    assert [line.split(maxsplit=4) for line in done.stdout.splitlines()] == [
        ["KEY", "OWNER", "SEQ", "AGE", "VALUE"],
        ["worker:a", "a", "4", "1m5s", "http://a:1 ready"],
        ["worker:b", "a", "4", "1m5s", "(tombstone)"],
        ["x:c", "a", "4", "1m5s", '{"n": [1]}'],
    ]
    assert "1.00000000000000aa" in meshctl("kv", "ls", "-o", "wide").stdout


def test_an_entry_that_cannot_be_read_is_shown_as_such(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/store", {"entries": [entry("worker:a", value=None, readable=False)]})
    assert "(unreadable)" in meshctl("kv", "ls").stdout


def paged(keys: list[str]) -> Any:
    def answer(request: Request) -> Answer:
        limit = int(request.query["limit"][0])
        after = request.query.get("after", [""])[0]
        rest = [key for key in keys if key > after]
        body: dict[str, Any] = {"entries": [entry(key) for key in rest[:limit]]}
        if len(rest) > limit:
            body["next"] = rest[limit - 1]
        return Answer(body)

    return answer


@pytest.mark.parametrize(("limit", "shown", "asked"), [(None, 2500, 3), (1500, 1500, 2), (1000, 1000, 1)])
def test_a_long_listing_is_fetched_page_by_page(
    daemon: FakeApi, meshctl: Meshctl, limit: int | None, shown: int, asked: int
) -> None:
    daemon.on("GET", "/mesh/store", paged([f"worker:{number:05}" for number in range(2500)]))
    words = () if limit is None else ("--limit", str(limit))
    done = meshctl("kv", "ls", "worker:", "-o", "json", *words)
    assert len(json.loads(done.stdout)["entries"]) == shown
    assert len(daemon.requests) == asked
    assert daemon.requests[0].query["prefix"] == ["worker:"]


@pytest.mark.req("CTL-2", "CTL-3")
def test_one_entry_is_shown_whole(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/store/worker:a", {"entries": [entry("worker:a")]})
    done = meshctl("kv", "get", "worker:a")
    assert done.exit_code == 0
    assert "gen        1.00000000000000aa" in done.stdout
    assert '"url": "http://a:1"' in done.stdout
    assert json.loads(meshctl("kv", "get", "worker:a", "-o", "json").stdout)["seq"] == 4


@pytest.mark.req("CTL-2", "CTL-6")
def test_a_tombstone_is_shown_only_when_asked_for(daemon: FakeApi, meshctl: Meshctl) -> None:
    dead = entry("worker:a", tombstone=True, value=None)
    daemon.on("GET", "/mesh/store/worker:a", {"entries": [dead]})
    done = meshctl("kv", "get", "worker:a")
    assert done.exit_code == 1
    assert "--tombstones" in done.stderr
    done = meshctl("kv", "get", "worker:a", "--tombstones")
    assert done.exit_code == 0
    assert "tombstone  yes" in done.stdout


@pytest.mark.req("SYN-7")
def test_an_entry_that_does_not_count_says_why(daemon: FakeApi, meshctl: Meshctl) -> None:
    foreign = entry("worker:a", owner="m", visible=False, foreign=True)
    daemon.on("GET", "/mesh/store", {"entries": [foreign, entry("x:b", visible=False, value=1)]})
    shown = meshctl("kv", "ls", "--tombstones").stdout
    assert "(foreign) http://a:1 ready" in shown
    assert "(beaten) 1" in shown


@pytest.mark.req("CTL-6")
def test_a_key_that_is_not_there_is_exit_code_1(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/store/worker:a", Answer({"error": "no entry", "code": "KEY_NOT_FOUND"}, 404))
    assert meshctl("kv", "get", "worker:a").exit_code == 1


@pytest.mark.req("CTL-2")
def test_the_vector_has_a_line_for_each_owner(daemon: FakeApi, meshctl: Meshctl) -> None:
    row = {"gen": "1.00000000000000aa", "max": 9, "floor": 2, "hash": "00ff", "fence": None, "silence_s": 0.0}
    daemon.on("GET", "/mesh/vector", {"a": row, "b": {**row, "silence_s": 90.0}})
    assert [line.split() for line in meshctl("kv", "vector").stdout.splitlines()] == [
        ["OWNER", "GEN", "MAX", "FLOOR", "HASH", "SILENCE"],
        ["a", "1.00000000000000aa", "9", "2", "00ff", "now"],
        ["b", "1.00000000000000aa", "9", "2", "00ff", "1m30s"],
    ]
