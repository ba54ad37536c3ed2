"""What servers tell about their limits, over real sockets and from odd answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from meshd.workers.check_grpc import GrpcChecker
from meshd.workers.health_schedule import CheckTarget
from meshd.workers.http_client import HttpClient
from meshd.workers.server_info import NotAnswered, Rank, ServerInfo, read_info, share
from tests.support.engine_servers import Answer, HttpEngine, grpc_engine, http_engine


@pytest.fixture
async def engine() -> AsyncIterator[HttpEngine]:
    async with http_engine() as engine:
        yield engine


@pytest.fixture
async def info() -> AsyncIterator[ServerInfo]:
    http, grpc = HttpClient(), GrpcChecker()
    yield ServerInfo(http, grpc)
    http.close()
    grpc.close()


def target(url: str, runtime: str = "unspecified", timeout_s: float = 5.0) -> CheckTarget:
    return CheckTarget(url, url.split(":")[0], "/", timeout_s, "k-1", runtime)


SGLANG = {
    "model_path": "m",
    "max_running_requests": None,
    "dp_size": 2,
    "internal_states": [
        {"effective_max_running_requests_per_dp": 48, "memory_usage": {}},
        {"effective_max_running_requests_per_dp": 16},
    ],
    "version": "0.5",
}


@pytest.mark.req("CAP-6")
@pytest.mark.parametrize("path", ["/get_server_info", "/server_info"])
@pytest.mark.parametrize("runtime", ["sglang", "unspecified"])
async def test_sglang_tells_by_either_name(
    path: str, runtime: str, engine: HttpEngine, info: ServerInfo
) -> None:
    engine.tells(path, SGLANG)
    assert await info.max_running_requests(target(engine.url, runtime)) == 64
    assert await info.max_running_requests(target(engine.url, runtime), Rank(1, 2)) == 16
    assert {asked.headers["authorization"] for asked in engine.asked} == {"Bearer k-1"}


@pytest.mark.req("CAP-6")
@pytest.mark.parametrize("runtime", ["vllm", "unspecified"])
async def test_vllm_tells_where_that_is_switched_on(
    runtime: str, engine: HttpEngine, info: ServerInfo
) -> None:
    ask = target(engine.url, runtime)
    assert await info.max_running_requests(ask) is None
    engine.tells(
        "/server_info?config_format=json", {"vllm_config": {"scheduler_config": {"max_num_seqs": 256}}}
    )
    assert await info.max_running_requests(ask) == 256
    config = {
        "scheduler_config": {"max_num_seqs": 256},
        "parallel_config": {"data_parallel_size": 4, "data_parallel_size_local": 2},
    }
    engine.tells("/server_info?config_format=json", {"vllm_config": config})
    assert await info.max_running_requests(ask) == 1024
    assert await info.max_running_requests(ask, Rank(0, 4)) == 256
    config["parallel_config"]["data_parallel_hybrid_lb"] = True
    engine.tells("/server_info?config_format=json", {"vllm_config": config})
    assert await info.max_running_requests(ask) == 512
    config["parallel_config"]["data_parallel_external_lb"] = True
    engine.tells("/server_info?config_format=json", {"vllm_config": config})
    assert await info.max_running_requests(ask) == 256


@pytest.mark.req("CAP-6")
async def test_grpc_engines_tell_by_their_loads(info: ServerInfo) -> None:
    with grpc_engine("sglang") as engine:
        engine.ranks = [10, 20]
        assert await info.max_running_requests(target(engine.url, "sglang")) == 30
        assert await info.max_running_requests(target(engine.url, "sglang"), Rank(1, 2)) == 20
        engine.ranks = [0]
        assert await info.max_running_requests(target(engine.url, "sglang")) is None
    with pytest.raises(NotAnswered, match="connection refused"):
        await info.max_running_requests(target(engine.url, "sglang"))


@pytest.mark.req("CAP-6")
async def test_servers_of_a_kind_that_does_not_tell_are_not_asked(
    engine: HttpEngine, info: ServerInfo
) -> None:
    for runtime in ("trtllm", "mlx", "external"):
        assert not info.tells(target(engine.url, runtime))
        assert await info.max_running_requests(target(engine.url, runtime)) is None
    assert await info.max_running_requests(target("ipc:///run/x", "vllm")) is None
    assert engine.asked == []


@pytest.mark.req("CAP-6")
async def test_a_server_that_cannot_answer_now_is_told_from_one_that_does_not_tell(
    engine: HttpEngine, info: ServerInfo
) -> None:
    for status in (401, 403, 404, 405, 418):
        engine.answers = {"/get_server_info": Answer(status), "/server_info": Answer(status)}
        assert await info.max_running_requests(target(engine.url, "sglang")) is None
    for answer in (Answer(503), Answer(429), Answer(hang_up=True)):
        engine.answers = {"/get_server_info": answer}
        with pytest.raises(NotAnswered):
            await info.max_running_requests(target(engine.url, "sglang"))
    engine.answers = {"/get_server_info": Answer(delay_s=60)}
    with pytest.raises(NotAnswered, match="no answer within"):
        await info.max_running_requests(target(engine.url, "sglang", 0.1))


@pytest.mark.req("CAP-6", "SEC-4")
async def test_an_answer_without_end_is_not_read(engine: HttpEngine, info: ServerInfo) -> None:
    engine.answers = {"/get_server_info": Answer(endless=True, body=b'{"a":' + b" " * 1000)}
    with pytest.raises(NotAnswered, match="longer than"):
        await info.max_running_requests(target(engine.url, "sglang"))


@pytest.mark.req("CAP-6", "SEC-4")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"64",
        b"{}",
        b'{"max_running_requests": "64"}',
        b'{"max_running_requests": true}',
        b'{"max_running_requests": -1}',
        b'{"max_running_requests": 0}',
        b'{"max_running_requests": 1e9}',
        b'{"max_running_requests": 99999999999999999999}',
        b'{"internal_states": {"0": 1}}',
        b'{"internal_states": [null, 7, {"effective_max_running_requests_per_dp": []}]}',
        b'{"vllm_config": "VllmConfig(max_num_seqs=5)"}',
        b'{"vllm_config": {"scheduler_config": null}}',
    ],
)
def test_odd_answers_tell_nothing(answer: bytes) -> None:
    assert read_info(answer, Rank()) is None
    assert read_info(answer, Rank(0, 2)) is None


@pytest.mark.req("CAP-6")
def test_a_rank_without_a_figure_of_its_own_gets_its_share_of_the_whole() -> None:
    whole = json.dumps({"max_running_requests": 64}).encode()
    assert read_info(whole, Rank()) == 64
    assert read_info(whole, Rank(3, 4)) == 16
    assert read_info(whole, Rank(3, None)) == 64
    assert share([48], 64, Rank(3, 4)) == 16
    assert share([48, -5], None, Rank()) == 48
    assert share([], 1, Rank(0, 4)) == 1
    assert share([], None, Rank(0, 4)) is None
