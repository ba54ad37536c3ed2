"""Health checks over gRPC against a server of each engine, on real sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
import trio
import trustme

from meshd.workers import check_grpc
from meshd.workers.check_grpc import MISSING, CallFailed, GrpcChecker
from meshd.workers.health_schedule import CheckTarget
from tests.support.engine_servers import GRPC_ENGINES, grpc_engine


@pytest.fixture
async def checker() -> AsyncIterator[GrpcChecker]:
    checker = GrpcChecker()
    yield checker
    checker.close()


def target(
    url: str, runtime: str = "unspecified", timeout_s: float = 5.0, api_key: str | None = None
) -> CheckTarget:
    return CheckTarget(url, url.split(":")[0], "/health", timeout_s, api_key, runtime)


@pytest.mark.req("LIF-7")
@pytest.mark.parametrize("kind", [*GRPC_ENGINES, "standard"])
async def test_each_engine_is_asked_in_its_own_words(kind: str, checker: GrpcChecker) -> None:
    with grpc_engine(kind) as engine:
        ask = target(engine.url, kind if kind in GRPC_ENGINES else "external", api_key="k-1")
        assert await checker.check(ask) is None
        engine.healthy, engine.message = False, "loading\nmodel" + "x" * 1000
        cause = await checker.check(ask)
        if kind == "standard":
            assert cause == "server says NOT_SERVING"
        else:
            assert cause is not None
            assert cause.startswith("engine says it is not healthy: loading model")
            assert len(cause) < 300
        engine.healthy = True
        assert await checker.check(ask) is None
        assert {key for _, key in engine.calls} == {"Bearer k-1"}
        assert len(engine.calls) == 3, "the way that answered is remembered"
        assert checker.open_channels == 1


@pytest.mark.req("LIF-7")
async def test_an_engine_without_a_health_call_is_asked_by_the_standard_one(checker: GrpcChecker) -> None:
    with grpc_engine("standard") as engine:
        assert await checker.check(target(engine.url, "sglang")) is None


@pytest.mark.req("LIF-7")
@pytest.mark.parametrize("kind", list(GRPC_ENGINES))
async def test_an_engine_that_is_not_named_is_found_out(kind: str, checker: GrpcChecker) -> None:
    with grpc_engine(kind) as engine:
        assert await checker.check(target(engine.url)) is None
        assert await checker.check(target(engine.url)) is None
        assert [call for call, _ in engine.calls] == ["HealthCheck"] * 2


@pytest.mark.req("LIF-4", "LIF-7")
async def test_each_way_to_fail_has_a_cause_that_stays_the_same(checker: GrpcChecker) -> None:
    with grpc_engine("none") as engine:
        for runtime in ("vllm", "unspecified"):
            cause = await checker.check(target(engine.url, runtime))
            assert cause == "the server offers no health check that this node knows"
    for _ in range(2):
        assert await checker.check(target(engine.url)) == "connection refused"
    assert checker.open_channels == 0
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        silent = f"grpc://127.0.0.1:{listener.socket.getsockname()[1]}"
        assert await checker.check(target(silent, timeout_s=0.2)) == "no answer within 0.2 s"


@pytest.mark.req("LIF-6", "LIF-7")
async def test_a_worker_that_is_back_passes_its_next_check(checker: GrpcChecker) -> None:
    with grpc_engine("vllm") as engine:
        assert await checker.check(target(engine.url, "vllm")) is None
    port = int(engine.url.rpartition(":")[2])
    for _ in range(5):
        assert await checker.check(target(engine.url, "vllm")) is not None
    with grpc_engine("sglang", port=port) as engine:
        assert await checker.check(target(engine.url, "unspecified")) is None


@pytest.mark.req("LIF-6")
async def test_channels_are_bounded() -> None:
    checker = GrpcChecker(channels=1)
    with grpc_engine("vllm") as one, grpc_engine("sglang") as two:
        for _ in range(2):
            assert await checker.check(target(one.url, "vllm")) is None
            assert await checker.check(target(two.url + "@0", "sglang")) is None
            assert await checker.check(target(two.url + "@1", "sglang")) is None
            assert checker.open_channels == 1
        async with trio.open_nursery() as nursery:
            for engine in (one, two) * 4:

                async def check(url: str = engine.url) -> None:
                    assert await checker.check(target(url)) is None

                nursery.start_soon(check)
        assert checker.open_channels == 1
        checker.close()
        assert checker.open_channels == 0


@pytest.mark.req("LIF-7")
async def test_grpcs_is_checked_with_verification() -> None:
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    with grpc_engine("vllm", credentials) as engine:
        trusting = GrpcChecker(root_certificates=ca.cert_pem.bytes())
        assert await trusting.check(target(engine.url, "vllm")) is None
        trusting.close()
        suspicious = GrpcChecker(root_certificates=trustme.CA().cert_pem.bytes())
        cause = await suspicious.check(target(engine.url, "vllm"))
        assert cause in ("TLS certificate not accepted", "TLS failed")
        suspicious.close()


@pytest.mark.req("CAP-6")
@pytest.mark.parametrize("kind", ["sglang", "vllm", "tokenspeed"])
async def test_engines_tell_the_limit_of_each_rank(kind: str, checker: GrpcChecker) -> None:
    with grpc_engine(kind) as engine:
        engine.ranks = [48, 16]
        assert await checker.max_running_requests(target(engine.url, kind)) == [48, 16]
        assert await checker.max_running_requests(target(engine.url)) == [48, 16]
        assert await checker.check(target(engine.url)) is None
        assert await checker.max_running_requests(target(engine.url)) == [48, 16]


@pytest.mark.req("CAP-6")
async def test_an_engine_that_tells_no_limit_leaves_it_open(checker: GrpcChecker) -> None:
    with grpc_engine("mlx") as engine:
        assert await checker.max_running_requests(target(engine.url, "mlx")) == []
    with grpc_engine("none") as engine:
        assert await checker.max_running_requests(target(engine.url, "vllm")) == []
    with pytest.raises(CallFailed, match="connection refused"):
        await checker.max_running_requests(target(engine.url, "vllm"))


@pytest.mark.req("SEC-3")
async def test_a_key_that_no_header_can_carry_is_a_cause_without_the_key(checker: GrpcChecker) -> None:
    with grpc_engine("vllm") as engine:
        cause = await checker.check(target(engine.url, "vllm", api_key="se\ncret"))
        assert cause is not None
        assert "cret" not in cause


@pytest.mark.req("LIF-4", "LIF-7")
async def test_a_missing_extra_is_a_cause_that_names_the_way_out(
    checker: GrpcChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> dict[str, object]:
        raise ModuleNotFoundError("No module named 'grpc'")

    monkeypatch.setattr(check_grpc, "_import_all", missing)
    assert await checker.check(target("grpc://127.0.0.1:1")) == MISSING
    assert "meshd[grpc]" in MISSING
    with pytest.raises(CallFailed):
        await checker.max_running_requests(target("grpc://127.0.0.1:1", "vllm"))


@pytest.mark.req("LIF-7")
def test_grpc_is_imported_by_the_first_check_and_not_before() -> None:
    program = (
        "import sys, meshd.workers.check_grpc as c; c.GrpcChecker;"
        "sys.exit(any(name.split('.')[0] in ('grpc', 'google') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
