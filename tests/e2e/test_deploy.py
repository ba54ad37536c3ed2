"""What `deploy/` ships works: the unit file is clean, the example settings load, READY=1 is said."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from meshd.demo.children import Children
from meshd.demo.processes import Daemon, program

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.req("CTL-1")
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "meshd.service").read_text("utf-8")
    # The checker wants the programs to exist: it gets the installed ones in place of those in /opt.
    checked, replaced = re.subn(r"/opt/meshd/bin/(\w+)", lambda match: program(match[1]), unit)
    assert replaced == 2
    (tmp_path / "meshd.service").write_text(checked, "utf-8")
    verdict = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "meshd.service")],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")


@pytest.mark.req("CTL-1")
def test_the_unit_waits_for_ready_and_runs_as_an_ordinary_user() -> None:
    lines = (DEPLOY / "meshd.service").read_text("utf-8").splitlines()
    for line in ("Type=notify", "User=meshd", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in lines


@pytest.mark.req("CTL-3")
def test_the_example_settings_are_valid() -> None:
    checked = subprocess.run(
        [program("meshd"), "validate", "--config", str(DEPLOY / "meshd.toml")],
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.req("SEC-3")
def test_the_container_runs_as_an_ordinary_user_and_names_no_registry() -> None:
    lines = [
        line.split("#")[0].strip() for line in (DEPLOY / "Containerfile").read_text("utf-8").splitlines()
    ]
    stages = [line for line in lines if line.startswith("FROM ")]
    last_stage = lines[lines.index(stages[-1]) :]
    assert len(stages) == 2
    assert "USER 10001:10001" in last_stage
    images = [line.partition("=")[2] for line in lines if line.startswith("ARG ")]
    assert images == [image for image in images if "/" not in image and "." not in image.partition(":")[0]]


@pytest.mark.req("CTL-4")
def test_a_daemon_tells_its_supervisor_when_it_is_ready_and_when_it_stops(
    children: Children, tmp_path: Path
) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(place))
        supervisor.settimeout(30.0)
        daemon = Daemon(children, tmp_path, "a", env={"NOTIFY_SOCKET": str(place)})
        daemon.start()
        assert "READY=1" in supervisor.recv(4096).decode().splitlines()
        daemon.wait_ready(timeout_s=2.0)
        daemon.child.signal(signal.SIGTERM)
        assert "STOPPING=1" in supervisor.recv(4096).decode().splitlines()
        assert daemon.child.wait(10.0) == 0


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "mesh.hartbeat_s=1"], "mesh.heartbeat_s"),
        (["--set", "mesh.heartbeat_s=soon"], "mesh.heartbeat_s"),
        (["--mesh", "nowhere"], "mesh"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_clear_line(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    refused = subprocess.run(
        [program("meshd"), "run", "--data-dir", str(tmp_path / "data"), *arguments],
        capture_output=True,
        text=True,
        timeout=60.0,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert refused.returncode == 2
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
