from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

import meshd
from meshd.cli.meshctl_main import main
from tests.cli.conftest import Meshctl
from tests.support.fake_api import Answer, FakeApi


@pytest.fixture
def well(daemon: FakeApi) -> FakeApi:
    daemon.on("GET", "/readyz", {"ready": True})
    daemon.on("GET", "/mesh/status", {"node": "a", "version": "9.9.9"})
    members = [
        {"name": "a", "state": "alive", "lag": {}},
        {"name": "b", "state": "alive", "lag": {"a": 3}},
        {"name": "c", "state": "down", "lag": None},
    ]
    daemon.on("GET", "/mesh/members", {"members": members})
    daemon.on("GET", "/workers", {"workers": [{"status": "failed"}], "total": 2})
    daemon.on("GET", "/capacity", {"capacity": 64, "source": "mixed", "workers_available": 1})
    return daemon


@pytest.mark.req("CTL-6")
def test_check_is_one_line_with_performance_data(well: FakeApi, meshctl: Meshctl) -> None:
    done = meshctl("check")
    assert done.exit_code == 0
    assert (
        done.stdout
        == "OK - node a, 2 members alive, 2 workers, 1 ready | members=2 workers=2 ready=1 lag=3\n"
    )


@pytest.mark.req("CTL-6")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--min-members", "3"), "2 alive members, 3 wanted"),
        (("--min-ready", "2"), "1 ready workers, 2 wanted"),
        (("--max-lag", "2"), "a member lacks 3 entries, 2 allowed"),
    ],
)
def test_check_fails_beyond_a_limit(
    well: FakeApi, meshctl: Meshctl, words: tuple[str, ...], problem: str
) -> None:
    done = meshctl("check", *words)
    assert done.exit_code == 1
    assert done.stdout.startswith(f"CRITICAL - {problem}")
    assert meshctl("check", "--nagios", *words).exit_code == 2


@pytest.mark.req("CTL-6")
def test_check_fails_while_the_daemon_is_not_ready(well: FakeApi, meshctl: Meshctl) -> None:
    well.on("GET", "/readyz", Answer({"ready": False}, 503))
    done = meshctl("check", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.req("CTL-6")
@pytest.mark.parametrize(("words", "code"), [((), 3), (("--nagios",), 2)])
def test_check_without_a_daemon_still_prints_its_line(
    meshctl: Meshctl, words: tuple[str, ...], code: int
) -> None:
    done = meshctl("check", "--addr", "127.0.0.1:1", *words, aimed=False)
    assert done.exit_code == code
    assert done.stdout.startswith("CRITICAL - no daemon answers")


@pytest.mark.req("CTL-3")
def test_the_log_level_is_changed(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("PUT", "/log-level", {"status": "accepted", "message": "logging from debug on"})
    assert meshctl("log-level", "debug").exit_code == 0
    assert daemon.requests[-1].body == {"level": "debug"}
    assert meshctl("log-level", "loud").exit_code == 2


@pytest.mark.req("CTL-3")
def test_version_tells_both_versions_and_needs_no_daemon(well: FakeApi, meshctl: Meshctl) -> None:
    both = meshctl("version", "-o", "json")
    assert json.loads(both.stdout) == {"meshctl": meshd.__version__, "meshd": "9.9.9", "node": "a"}
    alone = meshctl("version", "--addr", "127.0.0.1:1", aimed=False)
    assert alone.exit_code == 0
    assert "not asked" in alone.stdout
    assert meshctl("version", "--client").stdout == f"meshctl  {meshd.__version__}\n"


@pytest.mark.req("CTL-1", "CTL-3")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(meshctl: Meshctl, shell: str) -> None:
    done = meshctl("completion", shell)
    assert done.exit_code == 0
    assert "_MESHCTL_COMPLETE" in done.stdout
    assert meshctl("completion", env={"SHELL": f"/bin/{shell}"}).stdout == done.stdout


def test_completion_of_an_unknown_shell_is_a_usage_error(meshctl: Meshctl) -> None:
    assert meshctl("completion", env={"SHELL": "/bin/ksh"}).exit_code == 2


@pytest.mark.req("CTL-6")
@pytest.mark.parametrize(
    "words", [("fly",), ("worker", "fly"), ("members", "--wings"), ("-o", "xml", "members")]
)
def test_wrong_usage_is_exit_code_2(meshctl: Meshctl, words: tuple[str, ...]) -> None:
    assert meshctl(*words).exit_code == 2


def test_every_command_has_help_of_its_own(meshctl: Meshctl) -> None:
    shown = meshctl("--help").stdout
    assert "--addr" in shown
    assert "Exit codes" in shown
    for words in (("worker", "add"), ("kv",), ("watch",), ("converge",)):
        done = meshctl(*words, "--help")
        assert done.exit_code == 0
        assert "Global options" in done.stdout


def offered(words: str, env: dict[str, str]) -> list[str]:
    """What bash would be offered for the last word of the line."""
    line = words.split(" ")
    environment = {
        **env,
        "_MESHCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(line) - 1),
    }
    done = CliRunner().invoke(main, [], env=environment, prog_name="meshctl")
    return [text.partition(",")[2] for text in done.stdout.split()]


@pytest.mark.req("CTL-1")
def test_the_shell_is_offered_commands_workers_and_members(
    well: FakeApi, environment: dict[str, str]
) -> None:
    well.on("GET", "/workers", {"workers": [{"id": "1f3a-x", "url": "http://x:1"}, {"id": "2c44-y"}]})
    env = {**environment, "MESHCTL_ADDR": well.url}
    assert offered("meshctl me", env) == ["members"]
    assert offered("meshctl worker dr", env) == ["drain"]
    assert offered("meshctl worker rm 1f", env) == ["1f3a-x"]
    assert offered("meshctl forget b", env) == ["b"]


def test_without_a_daemon_the_shell_is_offered_nothing(environment: dict[str, str]) -> None:
    assert offered("meshctl worker rm 1f", {**environment, "MESHCTL_ADDR": "127.0.0.1:1"}) == []
