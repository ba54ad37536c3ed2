"""Health checks over HTTP against servers on real sockets: good, slow, broken and hostile ones."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncIterator

import pytest
import trio
import trustme

from meshd.workers.causes import RequestFailed
from meshd.workers.check_http import HttpChecker
from meshd.workers.health_schedule import CheckTarget, server_url
from meshd.workers.http_client import HttpClient, build_request
from tests.support.engine_servers import Answer, HttpEngine, http_engine


@pytest.fixture
async def engine() -> AsyncIterator[HttpEngine]:
    async with http_engine() as engine:
        yield engine


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    client.close()


def target(
    url: str, path: str = "/health", timeout_s: float = 5.0, api_key: str | None = None
) -> CheckTarget:
    return CheckTarget(url, url.split(":")[0], path, timeout_s, api_key)


async def free_port() -> int:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return port


@pytest.mark.req("LIF-7")
async def test_any_2xx_passes_and_nothing_else(engine: HttpEngine, client: HttpClient) -> None:
    checker = HttpChecker(client)
    for status in (200, 204, 299):
        engine.answers["/health"] = Answer(status, b"")
        assert await checker.check(target(engine.url)) is None
    for status in (301, 400, 401, 404, 429, 500, 503):
        engine.answers["/health"] = Answer(status)
        assert await checker.check(target(engine.url)) == f"HTTP {status}"


@pytest.mark.req("LIF-7")
async def test_the_path_and_the_key_of_the_worker_are_used(engine: HttpEngine, client: HttpClient) -> None:
    engine.answers = {"/v1/ping?deep=1": Answer()}
    checker = HttpChecker(client)
    assert await checker.check(target(engine.url, "/v1/ping?deep=1", api_key="k-123")) is None
    assert await checker.check(target(engine.url, "/v1/ping?deep=1")) is None
    with_key, without = engine.asked
    assert (with_key.method, with_key.target) == ("GET", "/v1/ping?deep=1")
    assert with_key.headers["authorization"] == "Bearer k-123"
    assert with_key.headers["host"] == engine.url.removeprefix("http://")
    assert "authorization" not in without.headers


@pytest.mark.req("LIF-7")
async def test_a_url_with_a_path_is_asked_below_it_and_a_rank_is_cut(
    engine: HttpEngine, client: HttpClient
) -> None:
    engine.answers = {"/base/health": Answer(), "/health": Answer()}
    checker = HttpChecker(client)
    assert await checker.check(target(engine.url + "/base")) is None
    assert await checker.check(target(engine.url + "@3")) is None
    assert server_url("http://[::1]:80@12") == "http://[::1]:80"
    assert server_url("ipc://@7") == "ipc://@7"


@pytest.mark.req("LIF-4")
async def test_each_way_to_fail_has_a_cause_that_stays_the_same(
    engine: HttpEngine, client: HttpClient
) -> None:
    checker = HttpChecker(client)
    engine.answers = {
        "/slow": Answer(delay_s=60),
        "/mute": Answer(hang_up=True),
        "/smtp": Answer(raw=b"220 mail.example ESMTP\r\n\r\n"),
        "/half": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Le"),
        "/fat": Answer(raw=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000),
    }
    for _ in range(2):
        assert await checker.check(target(engine.url, "/slow", 0.1)) == "no answer within 0.1 s"
        assert await checker.check(target(engine.url, "/mute")) == "connection closed without an answer"
        assert await checker.check(target(engine.url, "/smtp")) == "answer is not valid HTTP"
        assert await checker.check(target(engine.url, "/half")) == "connection closed within the answer"
        assert await checker.check(target(engine.url, "/fat")) == "answer is not valid HTTP"
        refused = f"http://127.0.0.1:{await free_port()}"
        assert await checker.check(target(refused)) == "connection refused"
    assert client.idle == 0


@pytest.mark.req("LIF-4")
async def test_a_server_that_accepts_and_says_nothing_times_out(client: HttpClient) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1)
    async with listener:
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        assert await HttpChecker(client).check(target(url, timeout_s=0.1)) == "no answer within 0.1 s"


async def test_a_name_that_does_not_resolve_is_a_cause(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*args: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert (
        await HttpChecker(client).check(target("http://engine.example:1")) == "host name cannot be resolved"
    )


async def test_a_host_with_several_addresses_is_asked_at_the_first_that_accepts(
    engine: HttpEngine, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(engine.url.rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (3, 2, 1)]

    def getaddrinfo(host: str, *args: object) -> list[object]:
        if host == "engine.example":
            if socket.AI_NUMERICHOST in args:
                raise socket.gaierror(socket.EAI_NONAME, "not a number")
            return list(found)
        return list(real(host, *args))  # type: ignore[arg-type]  # handed on as it came

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = f"http://engine.example:{port}"
    assert await HttpChecker(client).check(target(url)) is None
    assert engine.asked[0].headers["host"] == f"engine.example:{port}"
    del found[2]
    await engine.hang_up_all()
    assert await HttpChecker(client).check(target(url)) == "connection refused"
    found.clear()
    assert await HttpChecker(client).check(target(url)) == "host name cannot be resolved"


async def test_a_resolver_that_hangs_is_a_cause_and_takes_few_threads(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    looking = 0

    def getaddrinfo(*args: object) -> list[object]:
        nonlocal looking
        if socket.AI_NUMERICHOST in args:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        looking += 1
        release.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    causes: set[str | None] = set()

    async def check(number: int) -> None:
        causes.add(await HttpChecker(client).check(target(f"http://host{number}.example", timeout_s=0.3)))

    try:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(check, number)
        assert causes == {"no connection within 0.3 s"}
        assert looking == 16
    finally:
        release.set()


@pytest.mark.req("LIF-6")
async def test_connections_are_kept_between_checks(engine: HttpEngine, client: HttpClient) -> None:
    checker = HttpChecker(client)
    for _ in range(10):
        assert await checker.check(target(engine.url)) is None
    assert engine.connections == 1
    assert client.idle == 1


async def test_a_kept_connection_that_was_closed_costs_no_failed_check(
    engine: HttpEngine, client: HttpClient
) -> None:
    checker = HttpChecker(client)
    for _ in range(3):
        assert await checker.check(target(engine.url)) is None
        await engine.hang_up_all()
    assert engine.connections == 3


async def test_a_connection_closed_in_the_moment_of_asking_costs_no_failed_check(
    engine: HttpEngine, client: HttpClient
) -> None:
    checker = HttpChecker(client)
    assert await checker.check(target(engine.url)) is None
    engine.answers["/health"] = Answer(hang_up=True)
    async with trio.open_nursery() as nursery:

        async def mend() -> None:
            while len(engine.asked) < 2:
                await trio.lowlevel.checkpoint()
            engine.answers["/health"] = Answer()

        nursery.start_soon(mend)
        assert await checker.check(target(engine.url)) is None


async def test_a_server_that_wants_its_connection_closed_gets_that(
    engine: HttpEngine, client: HttpClient
) -> None:
    engine.answers["/health"] = Answer(close=True)
    checker = HttpChecker(client)
    assert await checker.check(target(engine.url)) is None
    assert await checker.check(target(engine.url)) is None
    assert (engine.connections, client.idle) == (2, 0)


async def test_idle_connections_are_bounded_per_origin_and_in_all(engine: HttpEngine) -> None:
    engine.answers["/health"] = Answer(delay_s=0.02)
    client = HttpClient(idle_per_origin=2, idle_total=3)
    checker = HttpChecker(client)

    async def check(url: str) -> None:
        assert await checker.check(target(url)) is None

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(check, engine.url)
    assert client.idle == 2
    async with http_engine() as second, http_engine() as third:
        await check(second.url)
        await check(third.url)
        assert client.idle == 3
        before = second.connections, third.connections
        await check(second.url)
        await check(third.url)
        assert (second.connections, third.connections) == before, "the least recently used went first"
        client.close()
    assert client.idle == 0


async def test_connections_that_idled_too_long_are_closed(engine: HttpEngine) -> None:
    client = HttpClient(idle_s=0.0)
    checker = HttpChecker(client)
    assert await checker.check(target(engine.url)) is None
    async with http_engine() as other:
        assert await checker.check(target(other.url)) is None
        assert client.idle == 1
    client.close()


@pytest.mark.req("SEC-4")
async def test_a_health_answer_counts_by_its_status_however_long_its_body(
    engine: HttpEngine, client: HttpClient
) -> None:
    engine.answers["/health"] = Answer(endless=True, body=b"x" * 100)
    assert await HttpChecker(client).check(target(engine.url)) is None
    engine.answers["/health"] = Answer(stall_after_body=True)
    assert await HttpChecker(client).check(target(engine.url)) is None
    assert client.idle == 0


@pytest.mark.req("SEC-4")
async def test_no_body_is_read_beyond_its_limit(engine: HttpEngine, client: HttpClient) -> None:
    engine.answers = {"/endless": Answer(endless=True), "/long": Answer(body=b"x" * 101), "/fits": Answer()}
    for path in ("/endless", "/long"):
        with pytest.raises(RequestFailed, match="longer than 100 bytes"):
            await client.get(engine.url, path, timeout_s=5, body_limit_bytes=100)
    reply = await client.get(engine.url, "/fits", timeout_s=5, body_limit_bytes=2)
    assert (reply.status, reply.body) == (200, b"ok")
    engine.answers["/stalled"] = Answer(stall_after_body=True)
    with pytest.raises(RequestFailed, match=r"no answer within 0\.1 s"):
        await client.get(engine.url, "/stalled", timeout_s=0.1, body_limit_bytes=100)


@pytest.mark.req("SEC-3", "LIF-4")
async def test_a_key_that_no_header_can_carry_is_a_cause_without_the_key(
    engine: HttpEngine, client: HttpClient
) -> None:
    for key in ("se\r\ncret", "se cret\x00", "señor-€"):
        cause = await HttpChecker(client).check(target(engine.url, api_key=key))
        assert cause is not None
        assert "key" in cause
        assert "cret" not in cause
        assert "señor" not in cause
        with pytest.raises(RequestFailed) as caught:
            build_request(engine.url, "/health", key)
        assert caught.value.__suppress_context__
    assert engine.asked == []


@pytest.mark.req("LIF-7")
async def test_https_is_checked_with_verification() -> None:
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    async with http_engine(server) as engine:
        client = HttpClient(ssl_context=trusting)
        checker = HttpChecker(client)
        for _ in range(3):
            assert await checker.check(target(engine.url, api_key="k")) is None
        assert engine.connections == 1
        await engine.hang_up_all()
        assert await checker.check(target(engine.url)) is None
        client.close()

        suspicious = HttpClient()
        cause = await HttpChecker(suspicious).check(target(engine.url))
        assert cause is not None
        assert cause.startswith("TLS certificate not accepted")
        suspicious.close()


@pytest.mark.req("LIF-4")
async def test_https_asked_of_a_server_without_tls_is_a_cause(engine: HttpEngine, client: HttpClient) -> None:
    cause = await HttpChecker(client).check(target(engine.url.replace("http:", "https:")))
    assert cause is not None
    assert cause.startswith(("TLS failed", "connection"))


async def test_ipv6_servers_are_asked_with_brackets(client: HttpClient) -> None:
    try:
        async with http_engine(host="::1") as engine:
            assert await HttpChecker(client).check(target(engine.url)) is None
            assert engine.asked[0].headers["host"].startswith("[::1]:")
            client.close()
    except* OSError:
        pytest.skip("this machine has no IPv6")
