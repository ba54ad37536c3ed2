from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config_address import Address, is_loopback, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7390", "127.0.0.1", 7390),
        (" 127.0.0.1:7390 ", "127.0.0.1", 7390),
        ("localhost:0", "localhost", 0),
        ("Gateway-1.Example.org:65535", "gateway-1.example.org", 65535),
        ("my_container:7390", "my_container", 7390),
        ("[::1]:7390", "::1", 7390),
        ("[2001:DB8:0:0:0:0:0:1]:1", "2001:db8::1", 1),
        ("0.0.0.0:7390", "0.0.0.0", 7390),
        ("1e100.net:7390", "1e100.net", 7390),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "port is missing"),
        ("127.0.0.1", "port is missing"),
        ("gateway", "for example gateway:7390"),
        (":7390", "host is missing"),
        ("127.0.0.1:", "from 0 to 65535"),
        ("127.0.0.1:65536", "from 0 to 65535"),
        ("127.0.0.1:-1", "from 0 to 65535"),
        ("127.0.0.1:http", "from 0 to 65535"),
        ("127.0.0.1:٣", "from 0 to 65535"),
        ("127.0.0.1:100000000000", "from 0 to 65535"),
        ("::1:7390", "in brackets"),
        ("[::1]", r"\[address\]:port"),
        ("[::1:7390", r"\[address\]:port"),
        ("[127.0.0.1]:7390", "not an IPv6 address"),
        ("[nonsense]:7390", "not an IPv6 address"),
        ("http://127.0.0.1:7390", "without a scheme"),
        ("a b:7390", "neither a host name nor"),
        ("a..b:7390", "neither a host name nor"),
        ("300.0.0.1:7390", "not an IP address"),
        ("127.1:7390", "not an IP address"),
        (f"{'a' * 64}:7390", "neither a host name nor"),
    ],
)
def test_what_is_no_address_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_address(text)


def test_port_zero_is_refused_where_somebody_must_dial_it() -> None:
    with pytest.raises(ValueError, match="cannot be dialled"):
        parse_address("127.0.0.1:0", allow_port_zero=False)


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_an_address_reads_back_as_it_was_written(ip: object, port: int) -> None:
    address = Address(str(ip), port)
    assert parse_address(str(address)) == address


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost", "::ffff:127.0.0.1"],
)
def test_loopback_is_told_from_the_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org", "", "128.0.0.1"]
)
def test_everything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "wildcard"), [("0.0.0.0:1", True), ("[::]:1", True), ("a:1", False), ("[::1]:1", False)]
)
def test_a_wildcard_address_is_known(text: str, wildcard: bool) -> None:
    assert parse_address(text).is_wildcard is wildcard
