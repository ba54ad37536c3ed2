"""One spelling per URL, and what is refused."""

from __future__ import annotations

import pytest

from meshd.errors import BadRequest
from meshd.workers.urls import is_reachable_from_others, normalise_url

SPELLINGS = [
    ("HTTP://Host.Example:80/", "http://host.example"),
    ("http://host.example", "http://host.example"),
    ("https://h:443", "https://h"),
    ("https://h:80/v1//", "https://h:80/v1"),
    ("http://10.0.0.1:8000/Base/Path/", "http://10.0.0.1:8000/Base/Path"),
    ("http://[2001:DB8:0:0::1]:8000", "http://[2001:db8::1]:8000"),
    ("http://[::1]", "http://[::1]"),
    ("grpc://Engine:50051/", "grpc://engine:50051"),
    ("grpcs://engine", "grpcs://engine"),
    ("ipc:///run/Worker.sock", "ipc:///run/Worker.sock"),
    ("http://10.0.0.1:8000@3", "http://10.0.0.1:8000@3"),
    ("http://10.0.0.1:80@03", "http://10.0.0.1@3"),
    ("http://with_underscore:1/", "http://with_underscore:1"),
]


@pytest.mark.req("REG-8")
@pytest.mark.parametrize(("given", "normal"), SPELLINGS)
def test_spellings_of_one_address_become_one(given: str, normal: str) -> None:
    assert normalise_url(given) == normal
    assert normalise_url(normal) == normal


@pytest.mark.req("REG-8")
@pytest.mark.parametrize(
    "url",
    ["", "10.0.0.1:8000", "localhost:8000", "example.org", "ftp://x", "http://", "http://:80", "http://h:0",
     "http://h:99999", "http://h:x", "http://user:pw@h", "http://key@h", "http://h/?a=1", "http://h?", "http://h#f",
     "http://ho st", "http://h\n", "http://127.1", "http://2130706433", "http://0x7f000001", "http://[::1",
     "http://[nope]", "http://-h", "http://a..b", "ipc://", "ipc:///", "http://bücher.example", "http://h/\\x",
     "http://" + "a" * 3000],
)  # fmt: skip
def test_what_is_no_worker_address_is_refused_naming_the_field(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        normalise_url(url)
    assert caught.value.field == "url"
    assert caught.value.http_status == 400


@pytest.mark.req("REG-8")
def test_host_and_port_without_a_scheme_are_refused_with_a_hint() -> None:
    with pytest.raises(BadRequest) as caught:
        normalise_url("10.0.0.1:8000")
    assert "http://10.0.0.1:8000" in caught.value.message


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(
    ("url", "reachable"),
    [("http://127.0.0.1:8000", False), ("http://127.9.9.9", False), ("http://localhost:1", False),
     ("http://a.localhost:1", False), ("http://[::1]:1", False), ("http://[::ffff:127.0.0.1]:1", False),
     ("http://0.0.0.0:1", False), ("ipc:///run/x", False), ("http://127.0.0.1:8000@2", False),
     ("http://10.0.0.1:8000", True), ("http://host:1", True), ("grpc://[2001:db8::1]:1", True),
     ("http://localhost.example:1", True)],
)  # fmt: skip
def test_loopback_addresses_and_socket_files_are_out_of_reach_for_others(url: str, reachable: bool) -> None:
    assert is_reachable_from_others(normalise_url(url)) is reachable
