from __future__ import annotations

import errno
import sys
import types
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

import meshd
from meshd.cli.meshd_main import main
from meshd.config import Config
from meshd.errors import ConfigError, DataDirLocked, DataDirMismatch


def meshd_program(*words: str) -> Result:
    return CliRunner().invoke(main, words, prog_name="meshd", env={"MESHD_CONFIG": None})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations with which the daemon was started, instead of starting one."""
    seen: list[Config] = []

    async def run_daemon(config: Config, _reread: object) -> None:
        seen.append(config)
        await trio.lowlevel.checkpoint()

    replace_daemon(monkeypatch, run_daemon)
    return seen


def replace_daemon(monkeypatch: pytest.MonkeyPatch, run_daemon: object) -> None:
    module = types.ModuleType("meshd.main")
    module.run_daemon = run_daemon  # type: ignore[attr-defined]  # a stand-in made here
    monkeypatch.setitem(sys.modules, "meshd.main", module)


@pytest.mark.req("CTL-3")
def test_every_flag_reaches_its_setting(started: list[Config], tmp_path: Path) -> None:
    done = meshd_program(
        "run", "--node-name", "n1", "--cluster", "c1", "--data-dir", str(tmp_path), "--mesh", "127.0.0.1:0",
        "--api", "127.0.0.1:8001", "--join", "10.0.0.1:7390", "--join", "[::1]:7390", "--log-format", "json",
        "--set", "mesh.heartbeat_s=0.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (config,) = started
    assert (config.node.name, config.node.cluster, config.node.data_dir) == ("n1", "c1", tmp_path)
    assert (config.mesh.bind, config.api.bind) == ("127.0.0.1:0", "127.0.0.1:8001")
    assert config.mesh.join == ("10.0.0.1:7390", "[::1]:7390")
    assert config.log.format == "json"
    assert config.mesh.heartbeat_s == 0.5


@pytest.mark.req("CTL-3")
def test_a_wrong_setting_is_one_line_with_its_field_and_exit_code_2(started: list[Config]) -> None:
    done = meshd_program("run", "--set", "mesh.heartbeat_s=-1", "--set", "mesh.hartbeat_s=1")
    assert done.exit_code == 2
    assert started == []
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert any(line.startswith("meshd: mesh.heartbeat_s: must be") for line in lines)
    assert any("did you mean mesh.heartbeat_s?" in line for line in lines)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), "--api"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "no such address"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/meshd.db"), "/data/meshd.db"),
        (DataDirLocked("the data directory /data is in use by process 7"), "process 7"),
        (DataDirMismatch("the data directory /data belongs to node b"), "belongs to node b"),
    ],
)
@pytest.mark.req("SYN-2")
def test_what_stops_the_start_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, words: str
) -> None:
    async def run_daemon(_config: Config, _reread: object) -> None:
        async with trio.open_nursery():
            raise failure

    replace_daemon(monkeypatch, run_daemon)
    done = meshd_program("run", "--node-name", "a")
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert isinstance(done.exception, SystemExit)


def test_a_port_that_is_busy_is_no_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_daemon(_config: Config, _reread: object) -> None:
        try:
            raise OSError(errno.EADDRINUSE, "in use")
        except OSError:
            raise ConfigError("api.bind", "cannot listen") from None

    replace_daemon(monkeypatch, run_daemon)
    assert meshd_program("run", "--node-name", "a").exit_code == 1


def test_a_setting_that_only_the_daemon_can_judge_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_daemon(_config: Config, _reread: object) -> None:
        raise ConfigError("worker[0].cost", "must be a number")

    replace_daemon(monkeypatch, run_daemon)
    done = meshd_program("run", "--node-name", "a")
    assert done.exit_code == 2
    assert "worker[0].cost" in done.stderr


def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_daemon(_config: Config, _reread: object) -> None:
        raise RuntimeError("a bug")

    replace_daemon(monkeypatch, run_daemon)
    done = meshd_program("run", "--node-name", "a")
    assert isinstance(done.exception, RuntimeError)


def test_an_interrupt_is_a_clean_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_daemon(_config: Config, _reread: object) -> None:
        raise KeyboardInterrupt

    replace_daemon(monkeypatch, run_daemon)
    assert meshd_program("run", "--node-name", "a").exit_code == 0


@pytest.mark.req("CTL-3")
def test_validate_checks_a_file_and_starts_nothing(started: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "meshd.toml"
    file.write_text('[node]\nname = "n1"\n[[worker]]\nurl = "http://x:1"\n')
    good = meshd_program("validate", "--config", str(file))
    assert good.exit_code == 0
    assert "node n1" in good.stdout
    assert "1 worker" in good.stdout
    file.write_text('[node]\nname = ""\n[nodes]\n')
    bad = meshd_program("validate", "--config", str(file))
    assert bad.exit_code == 2
    assert "node.name" in bad.stderr
    assert "nodes" in bad.stderr
    assert meshd_program("validate", "--config", str(tmp_path / "none.toml")).exit_code == 2
    assert started == []


def test_validate_lists_every_setting_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "meshd.toml"
    file.write_text('[node]\nname = "n1"\n')
    shown = meshd_program("validate", "--show", "--config", str(file)).stdout
    assert [line for line in shown.splitlines() if line.startswith("node.name") and str(file) in line]
    assert [line for line in shown.splitlines() if line.startswith("mesh.heartbeat_s") and "default" in line]


def test_version_is_told_both_ways() -> None:
    assert meshd_program("version").stdout == f"meshd {meshd.__version__}\n"
    assert meshd_program("--version").stdout == f"meshd {meshd.__version__}\n"
