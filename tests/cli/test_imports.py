from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "asyncio",
    "cbor2",
    "cryptography",
    "h11",
    "httpx",
    "hypercorn",
    "msgpack",
    "msgspec",
    "platformdirs",
    "prometheus_client",
    "rich",
    "sqlite3",
    "starlette",
    "structlog",
    "trio",
    "yaml",
    "zeroconf",
}


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.req("CTL-1")
def test_meshctl_imports_nothing_that_is_slow_to_import() -> None:
    assert modules_after("import meshd.cli.meshctl_main") & HEAVY == set()


@pytest.mark.req("CTL-1")
def test_reading_a_data_directory_imports_no_trio() -> None:
    loaded = modules_after("import meshd.cli.offline_store")
    assert loaded & {"trio", "starlette", "structlog", "httpx"} == set()


def test_meshd_version_and_validate_do_not_import_the_daemon() -> None:
    assert modules_after("import meshd.cli.meshd_main") & {"trio", "starlette", "structlog"} == set()
