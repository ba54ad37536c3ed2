from __future__ import annotations

import json
from pathlib import Path

import pytest

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog
from meshd.storage import open_sqlite
from meshd.workers.model import parse_spec
from meshd.workers.record import WorkerRecord, encode_record, worker_key
from tests.cli.conftest import NOW, Meshctl
from tests.support.fake_api import FakeApi, serving

#: A minute before the tests take place.
HLC = int((NOW - 60) * 1000) << 16


def record(owner: str, url: str) -> tuple[str, bytes]:
    spec = parse_spec({"url": url})
    return worker_key(owner, url), encode_record(WorkerRecord(spec, "ready", owner, 1))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """What a daemon called `a` left behind: a worker, a removed one, and an entry that is not its own."""
    directory = tmp_path / "data"
    key, value = record("a", "http://x:1")
    foreign_key, foreign_value = record("b", "http://y:1")
    log = OwnerLog("a", (5, 0xAA))
    log.append(key, value, HLC)
    log.append("worker:gone", None, HLC)
    log.append(foreign_key, foreign_value, HLC)
    store = open_sqlite(directory, "normal", "a", "prod")
    store.load()
    store.write([PutLog(log.head()), PutEntries("a", tuple(log.entries.values()))])
    store.close()
    return directory


@pytest.mark.req("CTL-1", "CTL-2")
def test_the_store_of_a_stopped_daemon_is_read_from_its_files(data_dir: Path, meshctl: Meshctl) -> None:
    done = meshctl("kv", "ls", "--data-dir", str(data_dir), aimed=False)
    assert done.exit_code == 0, done.output
    key, _ = record("a", "http://x:1")
    assert [line.split(maxsplit=4) for line in done.stdout.splitlines()[1:]] == [
        [key, "a", "1", "1m", "http://x:1 ready"]
    ]
    assert "no daemon runs" in done.stderr


@pytest.mark.req("CTL-2")
def test_tombstones_are_read_from_the_files_too(data_dir: Path, meshctl: Meshctl) -> None:
    done = meshctl("kv", "ls", "--tombstones", "--data-dir", str(data_dir), "-o", "json", aimed=False)
    entries = json.loads(done.stdout)["entries"]
    assert [entry["tombstone"] for entry in entries if entry["key"] == "worker:gone"] == [True]
    got = meshctl("kv", "get", "worker:gone", "--tombstones", "--data-dir", str(data_dir), aimed=False)
    assert got.exit_code == 0
    assert meshctl("kv", "get", "worker:gone", "--data-dir", str(data_dir), aimed=False).exit_code == 1


@pytest.mark.req("SYN-7")
def test_what_another_nodes_log_says_about_a_worker_does_not_count_offline_either(
    data_dir: Path, meshctl: Meshctl
) -> None:
    key, _ = record("b", "http://y:1")
    assert meshctl("kv", "get", key, "--data-dir", str(data_dir), aimed=False).exit_code == 1


@pytest.mark.req("CTL-1")
def test_info_of_a_data_directory_tells_whose_it_is_and_what_it_holds(
    data_dir: Path, meshctl: Meshctl
) -> None:
    done = meshctl("info", "--data-dir", str(data_dir), "-o", "json", aimed=False)
    found = json.loads(done.stdout)
    assert (found["node"], found["cluster"], found["running"]) == ("a", "prod", False)
    owner = found["owners"]["a"]
    assert len(owner.pop("hash")) == 16
    assert owner == {"gen": "5.00000000000000aa", "max": 3, "floor": 0, "live": 2, "tombstones": 1}
    assert "keys" in meshctl("info", "--data-dir", str(data_dir), aimed=False).stdout


@pytest.mark.req("CTL-1")
def test_the_running_daemon_of_a_data_directory_is_asked_instead(data_dir: Path, meshctl: Meshctl) -> None:
    with serving(FakeApi(), unix=data_dir / "meshd.sock") as daemon:
        daemon.on("GET", "/mesh/store", {"entries": []})
        done = meshctl("kv", "ls", "--data-dir", str(data_dir), aimed=False)
    assert done.exit_code == 0
    assert done.stderr == ""
    assert len(daemon.requests) == 1


@pytest.mark.req("CTL-6")
def test_a_command_that_needs_a_daemon_says_that_none_runs(data_dir: Path, meshctl: Meshctl) -> None:
    done = meshctl("members", "--data-dir", str(data_dir), aimed=False)
    assert done.exit_code == 3
    assert f"no daemon runs on the data directory {data_dir}" in done.stderr


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_directory_without_a_store_is_said_to_be_none(tmp_path: Path, meshctl: Meshctl, name: str) -> None:
    (tmp_path / "empty").mkdir()
    done = meshctl("kv", "ls", "--data-dir", str(tmp_path / name), aimed=False)
    assert done.exit_code == 1
    assert name in done.stderr
    assert "Traceback" not in done.output


def test_reading_changes_nothing_in_the_directory(data_dir: Path, meshctl: Meshctl) -> None:
    before = {path.name: path.read_bytes() for path in data_dir.iterdir()}
    meshctl("kv", "ls", "--data-dir", str(data_dir), aimed=False)
    after = {path.name: path.read_bytes() for path in data_dir.iterdir() if not path.name.endswith("-shm")}
    assert {name: after.get(name) for name in before} == before


@pytest.mark.req("CTL-2")
def test_the_vector_is_read_from_the_files_too(data_dir: Path, meshctl: Meshctl) -> None:
    done = meshctl("kv", "vector", "--data-dir", str(data_dir), aimed=False)
    assert done.stdout.splitlines()[1].split()[:4] == ["a", "5.00000000000000aa", "3", "0"]
