"""A daemon without sockets, and a caller of its API."""

from __future__ import annotations

import pytest

from tests.support.api_daemon import Caller, FakeDaemon, make_app


@pytest.fixture
async def daemon() -> FakeDaemon:
    return FakeDaemon()


@pytest.fixture
async def api(daemon: FakeDaemon) -> Caller:
    return Caller(make_app(daemon))
