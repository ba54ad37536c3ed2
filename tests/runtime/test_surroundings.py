"""What a daemon tells the world around it: the service manager, endpoints.json, the log."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from meshd.runtime import sdnotify
from meshd.runtime.endpoints import remove_endpoints, write_endpoints
from meshd.runtime.logs import setup_logs


@pytest.fixture
def clean_logs() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers, logging.getLogger().level = handlers, level


def test_the_service_manager_is_told_on_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        assert sdnotify.notify(sdnotify.READY, "STATUS=ready", environ={"NOTIFY_SOCKET": str(path)})
        assert manager.recv(1000) == b"READY=1\nSTATUS=ready"


def test_an_abstract_socket_is_understood() -> None:
    name = f"meshd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        assert sdnotify.notify(sdnotify.STOPPING, environ={"NOTIFY_SOCKET": "@" + name})
        assert manager.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_service_manager_nothing_happens(environ: dict[str, str]) -> None:
    assert not sdnotify.notify(sdnotify.READY, environ=environ)


def test_endpoints_are_private_whole_and_gone_after_the_stop(tmp_path: Path) -> None:
    path = write_endpoints(tmp_path, node="a", mesh="127.0.0.1:1", api="127.0.0.1:2", socket="/run/m.sock")
    assert json.loads(path.read_text()) == {
        "node": "a",
        "mesh": "127.0.0.1:1",
        "api": "127.0.0.1:2",
        "socket": "/run/m.sock",
        "pid": os.getpid(),
    }
    assert path.stat().st_mode & 0o777 == 0o600
    write_endpoints(tmp_path, node="a", mesh="127.0.0.1:3", api=None, socket=None)
    assert os.listdir(tmp_path) == ["endpoints.json"]
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("clean_logs")
def test_lines_are_json_with_level_and_time_and_the_level_can_change_while_running() -> None:
    out = io.StringIO()
    control = setup_logs("info", "json", out)
    logger = structlog.get_logger("any")
    bound_before = logger.bind(peer="b")
    logger.info("joined", node="a")
    bound_before.debug("not shown")
    control.set_level("debug")
    bound_before.debug("now_shown")
    control.set_level("error")
    logger.warning("not shown")
    logging.getLogger("hypercorn").error("from a library")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("joined", "info"),
        ("now_shown", "debug"),
        ("from a library", "error"),
    ]
    assert lines[0]["node"] == "a"
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.req("SEC-4")
@pytest.mark.usefixtures("clean_logs")
def test_a_library_that_complains_without_end_does_not_fill_the_log() -> None:
    out = io.StringIO()
    setup_logs("info", "json", out)
    for number in range(100):
        logging.getLogger("trio.serve_listeners").error("accept returned %s", number)
        logging.getLogger("another").error("accept returned %s", number)
    logging.getLogger("another").error("something else")
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert events == ["accept returned 0", "accept returned 0", "something else"]


@pytest.mark.req("SEC-3")
@pytest.mark.usefixtures("clean_logs")
@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_do_not_reach_the_log(form: str) -> None:
    out = io.StringIO()
    setup_logs("info", form, out)
    structlog.get_logger().info(
        "worker", api_key="sk-123", worker={"url": "u"}, Authorization="Bearer sk-123"
    )
    assert "sk-123" not in out.getvalue()
    assert "worker" in out.getvalue()


@pytest.mark.usefixtures("clean_logs")
def test_an_exception_is_logged_with_its_traceback() -> None:
    out = io.StringIO()
    setup_logs("info", "json", out)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError: broken" in json.loads(out.getvalue())["exception"]


@pytest.mark.usefixtures("clean_logs")
def test_a_reader_of_the_log_who_went_away_does_not_take_the_daemon_along() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    setup_logs("info", "json", Gone())
    structlog.get_logger().info("nobody reads this")


@pytest.mark.usefixtures("clean_logs")
def test_unknown_levels_and_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        setup_logs("loud", "json")
    with pytest.raises(ValueError, match="json or console"):
        setup_logs("info", "xml")
