from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from meshd.cli.address import Address, of_data_dir, parse
from meshd.cli.client import Api, path_of, query_text
from meshd.cli.exits import ApiRefused, Exit, InputRefused, NoSuchRoute, TimedOut, Unreachable
from tests.cli.conftest import Meshctl
from tests.support.fake_api import Answer, FakeApi, serving


@contextmanager
def raw_server(reply: bytes | None) -> Iterator[str]:
    """Accepts one connection after another; sends `reply` and closes, or with `None` keeps silent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                if reply is None:
                    held.append(connection)
                    continue
                connection.recv(65536)
                connection.sendall(reply)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


Connect = Callable[..., Api]


@pytest.fixture
def api_at() -> Iterator[Connect]:
    """Make clients, closed after the test."""
    with ExitStack() as stack:

        def connect(*where: str | Address, timeout_s: float = 5.0) -> Api:
            addresses = [one if isinstance(one, Address) else parse(one) for one in where]
            api = Api(addresses, timeout_s=timeout_s)
            stack.callback(api.close)
            return api

        yield connect


@pytest.mark.req("CTL-1")
def test_the_api_is_asked_over_a_unix_socket(api_at: Connect, tmp_path: Path) -> None:
    with serving(FakeApi(), unix=tmp_path / "meshd.sock") as daemon:
        daemon.on("GET", "/mesh/status", {"node": "a"})
        assert api_at(daemon.url).get("/mesh/status") == {"node": "a"}


def test_one_connection_serves_several_requests(api_at: Connect, daemon: FakeApi) -> None:
    daemon.on("GET", "/a", {"n": 1})
    api = api_at(daemon.url)
    assert [api.get("/a"), api.get("/a")] == [{"n": 1}, {"n": 1}]
    assert len(daemon.requests) == 2


def test_a_get_is_repeated_when_the_kept_connection_was_closed(api_at: Connect, daemon: FakeApi) -> None:
    daemon.on("GET", "/a", Answer({"n": 1}, headers={"X-Kept": "yes"}))
    api = api_at(daemon.url)
    api.get("/a")
    kept = api._kept
    assert kept is not None
    assert kept.sock is not None
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert api.get("/a") == {"n": 1}


def test_a_change_is_never_sent_twice(api_at: Connect, daemon: FakeApi) -> None:
    daemon.on("GET", "/a", {"n": 1})
    daemon.on("POST", "/a", {"n": 1})
    api = api_at(daemon.url)
    api.get("/a")
    kept = api._kept
    assert kept is not None
    assert kept.sock is not None
    kept.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(Unreachable):
        api.call("POST", "/a", body={})
    assert daemon.asked("POST", "/a") == []


@pytest.mark.req("CTL-6")
def test_a_refused_connection_is_exit_code_3_and_says_what_to_do(meshctl: Meshctl) -> None:
    done = meshctl("info", "--addr", "127.0.0.1:1", aimed=False)
    assert done.exit_code == Exit.UNREACHABLE
    assert "http://127.0.0.1:1 (connection refused)" in done.stderr
    assert "meshd" in done.stderr.splitlines()[1]
    assert done.stdout == ""


@pytest.mark.req("CTL-6")
def test_a_daemon_that_accepts_but_does_not_answer_is_exit_code_4(api_at: Connect) -> None:
    with raw_server(None) as where, pytest.raises(TimedOut) as caught:
        api_at(where, timeout_s=0.05).get("/mesh/status")
    assert "did not answer within 0.05 s" in caught.value.message


@pytest.mark.parametrize("reply", [b"\x00\x01garbage\r\n", b""])
def test_the_mesh_port_is_recognised_as_not_the_api(api_at: Connect, reply: bytes) -> None:
    with raw_server(reply) as where, pytest.raises(Unreachable) as caught:
        api_at(where).get("/mesh/status")
    assert caught.value.hint is not None
    assert "7391" in caught.value.hint


def test_another_programs_web_page_is_not_taken_for_an_answer(api_at: Connect, daemon: FakeApi) -> None:
    daemon.on("GET", "/mesh/status", Answer(raw=b"<html>hello</html>"))
    with pytest.raises(Unreachable, match="not JSON"):
        api_at(daemon.url).get("/mesh/status")


@pytest.mark.req("CTL-5", "CTL-6")
@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (400, "BAD_REQUEST", InputRefused, 2),
        (401, "UNAUTHORIZED", ApiRefused, 1),
        (404, "WORKER_NOT_FOUND", ApiRefused, 1),
        (404, "NOT_FOUND", NoSuchRoute, 1),
        (405, "METHOD_NOT_ALLOWED", NoSuchRoute, 1),
        (409, "WORKER_ALREADY_EXISTS", ApiRefused, 1),
        (500, "INTERNAL", ApiRefused, 1),
        (503, "UNAVAILABLE", ApiRefused, 1),
    ],
)
def test_an_error_answer_becomes_an_exit_code(
    api_at: Connect, daemon: FakeApi, status: int, code: str, kind: type[ApiRefused], exit_code: int
) -> None:
    daemon.on("GET", "/x", Answer({"error": "no", "code": code, "field": "url"}, status))
    with pytest.raises(ApiRefused) as caught:
        api_at(daemon.url).get("/x")
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert caught.value.code == code


def test_the_field_at_fault_is_named(api_at: Connect, daemon: FakeApi) -> None:
    daemon.on("GET", "/x", Answer({"error": "must be a number", "code": "BAD_REQUEST", "field": "cost"}, 400))
    with pytest.raises(ApiRefused, match=r"must be a number \(field: cost\)"):
        api_at(daemon.url).get("/x")


@pytest.mark.req("SEC-3")
def test_the_token_is_read_from_a_file_and_sent(daemon: FakeApi, meshctl: Meshctl, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    daemon.on("GET", "/mesh/status", {"node": "a"})
    meshctl("info", "--token-file", str(token))
    meshctl("info", env={"MESHCTL_TOKEN_FILE": str(token)})
    meshctl("info")
    assert [one.headers.get("authorization") for one in daemon.requests] == [
        "Bearer s3cret",
        "Bearer s3cret",
        None,
    ]


@pytest.mark.parametrize("content", ["", "two words", "two\nlines"])
def test_a_file_that_holds_no_token_is_a_usage_error(meshctl: Meshctl, tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    assert meshctl("info", "--token-file", str(token)).exit_code == 2
    assert meshctl("info", "--token-file", str(tmp_path / "none")).exit_code == 2


def test_a_missing_token_leads_to_the_option(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/status", Answer({"error": "a token is wanted", "code": "UNAUTHORIZED"}, 401))
    done = meshctl("info")
    assert done.exit_code == 1
    assert "--token-file" in done.stderr


def test_a_dead_socket_makes_its_directorys_tcp_endpoint_untrusted(
    api_at: Connect, daemon: FakeApi, tmp_path: Path
) -> None:
    # The port of a daemon that was killed may belong to another node by now.
    daemon.on("GET", "/mesh/status", {"node": "someone else"})
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "meshd.sock"))
    (tmp_path / "endpoints.json").write_text(f'{{"api": "{daemon.url.removeprefix("http://")}"}}')
    with pytest.raises(Unreachable) as caught:
        api_at(*of_data_dir(tmp_path, source="--data-dir")).get("/mesh/status")
    assert "not tried" in caught.value.message
    assert daemon.requests == []


def test_candidates_are_tried_in_order_and_the_first_that_accepts_is_kept(
    api_at: Connect, daemon: FakeApi
) -> None:
    daemon.on("GET", "/mesh/status", {"node": "a"})
    api = api_at(Address(host="127.0.0.1", port=1), daemon.url)
    assert api.get("/mesh/status") == {"node": "a"}
    assert str(api) == daemon.url


def test_paths_and_queries_may_hold_any_character() -> None:
    assert path_of("mesh", "store", "worker:a/b c") == "/mesh/store/worker%3Aa%2Fb%20c"
    assert query_text({"url": "http://w:1/?a=b", "none": None, "label": ["a:b", "c:d"]}) == (
        "?url=http%3A%2F%2Fw%3A1%2F%3Fa%3Db&label=a%3Ab&label=c%3Ad"
    )
    assert query_text({}) == ""
