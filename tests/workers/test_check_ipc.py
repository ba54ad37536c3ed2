"""Health checks of workers behind unix sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from meshd.workers.check_ipc import IpcChecker, socket_address
from meshd.workers.health_schedule import CheckTarget
from tests.support.engine_servers import unix_engine


def target(url: str) -> CheckTarget:
    return CheckTarget(url, "ipc", "/health", 0.2)


@pytest.mark.req("LIF-7")
async def test_a_socket_that_accepts_passes(tmp_path: Path) -> None:
    async with unix_engine(tmp_path / "engine.sock") as url:
        assert await IpcChecker().check(target(url)) is None


@pytest.mark.req("LIF-4", "LIF-7")
async def test_a_socket_that_is_missing_dead_or_no_socket_has_a_cause(tmp_path: Path) -> None:
    checker = IpcChecker()
    assert await checker.check(target(f"ipc://{tmp_path}/none")) == "no such socket"
    async with unix_engine(tmp_path / "dead") as url:
        pass
    assert await checker.check(target(url)) == "connection refused"
    (tmp_path / "file").write_text("")
    assert await checker.check(target(f"ipc://{tmp_path}/file")) == "connection refused"
    assert await checker.check(target("ipc:///" + "x" * 500)) == "connection failed"
    assert await checker.check(target("ipc:///a\0b")) is not None


@pytest.mark.req("LIF-4", "LIF-7")
async def test_a_socket_whose_server_accepts_nothing_more_times_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "full"))
        cause = await IpcChecker().check(target(f"ipc://{tmp_path}/full"))
    assert cause == "no connection within 0.2 s"


def test_an_at_sign_names_a_socket_without_a_file() -> None:
    assert socket_address("ipc://@engine") == "\0engine"
    assert socket_address("ipc:///run/engine.sock") == "/run/engine.sock"
