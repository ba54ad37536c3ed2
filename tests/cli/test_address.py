from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from meshd.cli.address import Address, candidates, default_data_dir, parse
from meshd.cli.exits import UsageProblem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://10.0.0.1:7391", "http://10.0.0.1:7391"),
        ("http://10.0.0.1:7391/", "http://10.0.0.1:7391"),
        ("HTTPS://mesh.example:443", "https://mesh.example:443"),
        ("10.0.0.1:8000", "http://10.0.0.1:8000"),
        ("localhost", "http://localhost:7391"),
        (":7500", "http://127.0.0.1:7500"),
        ("[::1]:7391", "http://[::1]:7391"),
        ("unix:/run/meshd.sock", "unix:/run/meshd.sock"),
        ("unix:///run/meshd.sock", "unix:/run/meshd.sock"),
        ("/run/meshd.sock", "unix:/run/meshd.sock"),
    ],
)
def test_an_address_is_read_in_the_forms_that_people_write(text: str, shown: str) -> None:
    assert str(parse(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "unix:", "ftp://a:1", "http://a:b", "http://a:99999", "http://a/workers", "http://u:p@a:1"]
)
def test_what_is_not_an_address_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse(text)
    assert caught.value.hint is not None
    assert "unix:/PATH" in caught.value.hint


def shown(found: list[Address]) -> list[str]:
    return [str(address) for address in found]


@pytest.mark.req("CTL-1")
def test_what_is_typed_beats_the_environment_and_that_what_is_found(tmp_path: Path) -> None:
    env = {"MESHCTL_ADDR": "env:1", "MESHD_NODE__DATA_DIR": str(tmp_path)}
    (tmp_path / "endpoints.json").write_text(json.dumps({"api": "127.0.0.1:4"}))
    assert shown(candidates(("typed:2",), tmp_path, env)) == ["http://typed:2"]
    assert shown(candidates((), tmp_path, env)) == ["http://127.0.0.1:4"]
    assert shown(candidates((), None, env)) == ["http://env:1"]
    del env["MESHCTL_ADDR"]
    assert shown(candidates((), None, env))[0] == "http://127.0.0.1:4"
    assert shown(candidates((), None, env))[-1] == "http://127.0.0.1:7391"


def test_the_socket_of_a_data_directory_comes_before_its_tcp_endpoint(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "meshd.sock"))
        (tmp_path / "endpoints.json").write_text(json.dumps({"api": "0.0.0.0:4"}))
        found = candidates((), tmp_path, {})
    assert shown(found) == [f"unix:{tmp_path}/meshd.sock", "http://127.0.0.1:4"]
    assert found[1].implied_by == f"{tmp_path}/meshd.sock"


def test_a_socket_recorded_relative_to_the_daemon_is_found_in_the_directory(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "meshd.sock"))
        (tmp_path / "endpoints.json").write_text(json.dumps({"socket": "data/meshd.sock"}))
        assert shown(candidates((), tmp_path, {})) == [f"unix:{tmp_path}/meshd.sock"]


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"api": 5}'])
def test_a_broken_endpoints_file_is_like_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "endpoints.json").write_text(content)
    assert candidates((), tmp_path, {}) == []


def test_a_data_directory_where_no_daemon_ever_ran_gives_no_candidates(tmp_path: Path) -> None:
    assert candidates((), tmp_path, {"MESHCTL_ADDR": "env:1"}) == []


def test_the_default_data_directory_is_the_daemons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from meshd.config import load_config

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir({}) == load_config(None, {}, {}).node.data_dir
    assert default_data_dir({"MESHD_NODE__DATA_DIR": "/data"}) == Path("/data")
