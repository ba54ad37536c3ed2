"""`meshctl snapshot`: from a daemon and from files, into files and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.storage import open_sqlite, read_offline, snapshot_chunks
from tests.cli.conftest import NOW, Meshctl
from tests.cli.test_offline import data_dir as data_dir
from tests.support.fake_api import Answer, FakeApi


@pytest.fixture
def saved(data_dir: Path, tmp_path: Path, meshctl: Meshctl) -> Path:
    file = tmp_path / "a.snapshot"
    done = meshctl("snapshot", "save", str(file), "--data-dir", str(data_dir), aimed=False)
    assert done.exit_code == 0, done.output
    assert "no daemon runs" in done.stderr
    return file


@pytest.mark.req("CRD-8", "CTL-3")
def test_what_was_saved_offline_is_told_by_status_and_is_private(saved: Path, meshctl: Meshctl) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600
    told = json.loads(meshctl("snapshot", "status", str(saved), "-o", "json", aimed=False).stdout)
    assert (told["node"], told["cluster"], told["taken_ms"]) == ("a", "prod", int(NOW * 1000))
    assert told["owners"][0]["live"] == 2
    text = meshctl("snapshot", "status", str(saved), aimed=False).stdout
    assert "2026-01-02T03:04:05+00:00" in text


@pytest.mark.req("CRD-8", "CTL-3")
def test_a_running_daemon_sends_its_snapshot(
    data_dir: Path, tmp_path: Path, daemon: FakeApi, meshctl: Meshctl
) -> None:
    raw = b"".join(snapshot_chunks(read_offline(data_dir), 1))
    daemon.on("POST", "/snapshot", Answer(raw=raw))
    file = tmp_path / "b.snapshot"
    assert meshctl("snapshot", "save", str(file)).exit_code == 0
    assert file.read_bytes() == raw


@pytest.mark.req("CRD-8", "CTL-3")
def test_what_breaks_off_or_is_refused_leaves_the_former_file(
    data_dir: Path, tmp_path: Path, daemon: FakeApi, meshctl: Meshctl
) -> None:
    file = tmp_path / "b.snapshot"
    file.write_text("the former one")
    raw = b"".join(snapshot_chunks(read_offline(data_dir), 1))
    daemon.on("POST", "/snapshot", Answer(raw=raw[:-5]))
    done = meshctl("snapshot", "save", str(file))
    assert done.exit_code == 1
    assert "cut short" in done.stderr
    daemon.on("POST", "/snapshot", Answer({"error": "later", "code": "UNAVAILABLE"}, 503))
    assert meshctl("snapshot", "save", str(file)).exit_code == 1
    assert file.read_text() == "the former one"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["b.snapshot"]
    assert meshctl("snapshot", "save", str(tmp_path / "no" / "such")).exit_code == 2


@pytest.mark.req("CRD-8", "CTL-3")
def test_a_snapshot_is_restored_to_an_empty_directory_under_a_greater_gen(
    saved: Path, tmp_path: Path, data_dir: Path, meshctl: Meshctl
) -> None:
    place = tmp_path / "other"
    done = meshctl("snapshot", "restore", str(saved), "--data-dir", str(place), aimed=False)
    assert done.exit_code == 0, done.output
    assert read_offline(place).logs["a"].gen > read_offline(data_dir).logs["a"].gen


@pytest.mark.req("CRD-8", "CTL-3")
def test_a_store_is_replaced_only_when_asked_and_never_under_a_running_daemon(
    saved: Path, data_dir: Path, meshctl: Meshctl
) -> None:
    words = ("snapshot", "restore", str(saved), "--data-dir", str(data_dir))
    done = meshctl(*words, aimed=False)
    assert done.exit_code == 1
    assert "--replace" in done.stderr
    running = open_sqlite(data_dir, "normal", "a", "prod")
    done = meshctl(*words, "--replace", aimed=False)
    running.close()
    assert done.exit_code == 1
    assert "in use" in done.stderr
    done = meshctl(*words, "--replace", "-o", "json", aimed=False)
    assert json.loads(done.stdout)["kept"] == ["meshd.db.before-restore-1"]


@pytest.mark.req("CRD-8", "CTL-6")
def test_a_file_that_is_no_snapshot_is_refused(saved: Path, tmp_path: Path, meshctl: Meshctl) -> None:
    altered = bytearray(saved.read_bytes())
    altered[-20] ^= 1
    saved.write_bytes(altered)
    for file, code in ((saved, 1), (tmp_path / "missing", 2)):
        assert meshctl("snapshot", "status", str(file), aimed=False).exit_code == code
        place = tmp_path / "never"
        done = meshctl("snapshot", "restore", str(file), "--data-dir", str(place), aimed=False)
        assert done.exit_code == code
        assert not place.exists()
