"""Snapshots of running daemons, restored after the disk is gone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from meshd.demo.children import Children
from meshd.demo.processes import program
from tests.support.openai_server import start_servers
from tests.support.processes import MeshMaker, agree, eventually, everywhere, stopped

UNCHECKED = {"health": {"disable_health_check": True}}


def meshctl(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("meshctl"), *words], capture_output=True, text=True, timeout=60.0, check=False
    )


def url(number: int) -> str:
    return f"http://10.255.255.{number}:8000"


@pytest.mark.req("CRD-8", "CRD-4", "CRD-6", "SYN-16")
def test_an_old_snapshot_of_a_lost_node_brings_nothing_back_that_was_removed_and_loses_nothing_since(
    make_mesh: MeshMaker, tmp_path: Path
) -> None:
    mesh = make_mesh("a", "b", "c").start()
    kept = mesh["a"].register({"url": url(1), **UNCHECKED})
    gone = mesh["a"].register({"url": url(2), **UNCHECKED})
    file = tmp_path / "a.snapshot"
    saved = meshctl("snapshot", "save", str(file), "--data-dir", str(mesh["a"].data_dir))
    assert saved.returncode == 0, saved.stderr
    mesh["a"].call("DELETE", f"/workers/{gone}?drain=0").expect(202)
    mesh["a"].register({"url": url(3), **UNCHECKED})
    everywhere(mesh, lambda daemon: set(daemon.workers()) == {url(1), url(3)}, "the state before the loss")
    refused = meshctl("snapshot", "restore", str(file), "--replace", "--data-dir", str(mesh["a"].data_dir))
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    mesh["a"].kill()
    shutil.rmtree(mesh["a"].data_dir)
    restored = meshctl("snapshot", "restore", str(file), "--data-dir", str(mesh["a"].data_dir))
    assert restored.returncode == 0, restored.stderr
    mesh["a"].start()
    mesh["a"].wait_ready()
    mesh.wait_met()
    everywhere(mesh, lambda daemon: set(daemon.workers()) == {url(1), url(3)}, "the state after it")
    eventually(lambda: agree(mesh), "all hold the same")
    assert mesh["b"].workers()[url(1)]["id"] == kept


@pytest.mark.req("CRD-8", "CTL-1")
def test_a_node_that_is_alone_comes_back_from_its_snapshot(make_mesh: MeshMaker, tmp_path: Path) -> None:
    mesh = make_mesh("a").start()
    mesh["a"].register({"url": url(1), **UNCHECKED})
    mesh["a"].call("PUT", "/config/capacity.override", {"value": 12}).expect(200)
    mesh["a"].stop()
    file = tmp_path / "a.snapshot"
    words = ("--data-dir", str(mesh["a"].data_dir))
    assert meshctl("snapshot", "save", str(file), *words).returncode == 0
    status = json.loads(meshctl("snapshot", "status", str(file), "-o", "json").stdout)
    assert [row["owner"] for row in status["owners"]] == ["a"]
    assert meshctl("snapshot", "restore", str(file), "--replace", *words).returncode == 0
    mesh["a"].start()
    mesh["a"].wait_ready()
    eventually(lambda: set(mesh["a"].workers()) == {url(1)}, "its worker is back")
    assert mesh["a"].get("/capacity")["capacity"] == 12


@pytest.mark.req("CRD-8", "CRD-6", "SYN-16")
def test_a_removed_worker_stays_removed_although_the_restored_node_checks_it_first(
    make_mesh: MeshMaker, children: Children, tmp_path: Path
) -> None:
    server = start_servers(children, tmp_path, 1)[0]
    mesh = make_mesh("a", "b", "c").start()
    worker = mesh["a"].register({"url": server.url})
    everywhere(mesh, lambda daemon: daemon.workers()[server.url]["status"] == "ready", "it serves")
    file = tmp_path / "a.snapshot"
    assert meshctl("snapshot", "save", str(file), "--data-dir", str(mesh["a"].data_dir)).returncode == 0
    server.stop()
    mesh["a"].call("DELETE", f"/workers/{worker}?drain=0").expect(202)
    everywhere(mesh, lambda daemon: not daemon.workers(), "it is removed")
    mesh["a"].kill()
    words = ("--replace", "--data-dir", str(mesh["a"].data_dir))
    assert meshctl("snapshot", "restore", str(file), *words).returncode == 0
    with stopped(mesh["b"]), stopped(mesh["c"]):
        mesh["a"].start()
        mesh["a"].wait_ready()
        eventually(lambda: mesh["a"].workers()[server.url]["last_error"], "a has checked it")
    mesh.wait_met()
    everywhere(mesh, lambda daemon: not daemon.workers(), "nobody has it")
    eventually(lambda: agree(mesh), "all hold the same")
    assert not any(daemon.workers() for daemon in mesh)
