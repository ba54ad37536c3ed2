"""Settings that change while a daemon runs: over real planes and trackers, without sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
import trio
from trio.testing import MockClock

from meshd.config import Config, load_config
from meshd.config_live import encode_value
from meshd.errors import BadRequest, ConfigError, KeyNotFound, Unavailable
from meshd.live_settings import cluster_sealer
from meshd.reload import DeclaredWorkers, Reloader, declared_workers
from meshd.workers.model import WorkerSpec, parse_spec
from meshd.workers.reconcile_loop import run_reconcile_loop
from meshd.workers.record import decode_record
from tests.support.api_daemon import FakeDaemon

URL = "http://10.0.0.5:8000"
OTHER = "http://10.0.0.6:8000"


def toml_of(folder: Path, *urls: str, extra: str = "") -> Path:
    file = folder / "meshd.toml"
    workers = "".join(f'[[worker]]\nurl = "{url}"\n[worker.health]\ndrain_settle_secs = 0\n' for url in urls)
    file.write_text(f"{extra}\n{workers}")
    return file


class FileDaemon(FakeDaemon):
    """A daemon that reads `path` besides its flags."""

    path: Path | None = None

    def reread(self) -> Config:
        return load_config(self.path, sets=self.sets, terminal=False)


def put(daemon: FakeDaemon, name: str, value: bytes) -> None:
    daemon.mesh.node.store.put(f"config:{name}", value)
    daemon.mesh.after_write()


@pytest.mark.req("CRD-3", "CAP-1")
async def test_the_capacity_is_pinned_as_soon_as_the_key_arrives_and_a_watcher_learns_it() -> None:
    daemon = FakeDaemon()
    watch = daemon.capacity.watch()
    watch.take()
    put(daemon, "capacity.override", encode_value(77))
    latest = watch.take()
    assert latest is not None
    assert (latest.capacity, latest.source) == (77, "override")
    assert daemon.config.capacity.override == 77
    daemon.mesh.node.store.delete("config:capacity.override")
    daemon.mesh.after_write()
    assert daemon.capacity.read().source == "legacy_fallback"


@pytest.mark.req("CRD-3", "LIF-1")
async def test_health_settings_reach_workers_that_are_registered_already() -> None:
    daemon = FakeDaemon()
    daemon.plane.register(declared_spec(URL), 0.0)
    assert daemon.plane.registry.list().workers[0].status == "pending"
    put(daemon, "health.disable_health_check", encode_value(True))
    assert daemon.plane.registry.list().workers[0].status == "ready"


def declared_spec(url: str) -> WorkerSpec:
    return parse_spec({"url": url})


@pytest.mark.req("CRD-3")
async def test_the_log_level_follows_the_cluster_and_a_level_for_this_run_stays_until_it_changes() -> None:
    daemon = FakeDaemon()
    put(daemon, "log.level", encode_value("warning"))
    assert daemon.log_control.level == "warning"
    daemon.log_control.set_level("debug")
    put(daemon, "capacity.override", encode_value(1))
    assert daemon.log_control.level == "debug"
    assert daemon.settings.row("log.level").source == "PUT /log-level"
    await daemon.reloader.reload()
    assert daemon.log_control.level == "warning"


@pytest.mark.req("CRD-3")
async def test_a_shorter_reconcile_interval_counts_for_the_pause_under_way(
    autojump_clock: MockClock,
) -> None:
    daemon = FakeDaemon()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: run_reconcile_loop(
                daemon.plane,
                daemon.mesh,
                lambda: daemon.settings.config.sync.reconcile_interval_s,
                changed=daemon.settings.changed,
                task_status=task_status,
            )
        )
        await trio.sleep(10)
        assert daemon.plane.reconcile_stats.passes == 0
        put(daemon, "sync.reconcile_interval_s", encode_value(12.0))
        await trio.sleep(2.5)
        assert daemon.plane.reconcile_stats.passes == 1
        nursery.cancel_scope.cancel()


@pytest.mark.req("CRD-3")
async def test_a_value_from_the_future_is_logged_once_and_left_out() -> None:
    daemon = FakeDaemon()
    with structlog.testing.capture_logs() as lines:
        put(daemon, "capacity.override", encode_value(70_000))
        put(daemon, "health.not_yet_invented", encode_value(1))
        put(daemon, "capacity.slots_per_worker", encode_value(5))
    left_out = [line["setting"] for line in lines if line["event"] == "cluster_setting_left_out"]
    assert left_out == ["capacity.override", "health.not_yet_invented"]
    assert daemon.config.capacity.override == 0
    assert daemon.config.capacity.slots_per_worker == 5


@pytest.mark.req("CRD-3")
async def test_setting_what_is_set_already_writes_nothing() -> None:
    daemon = FakeDaemon()
    daemon.settings.set_for_cluster("capacity.override", 5)
    before = daemon.mesh.node.vector()
    daemon.settings.set_for_cluster("capacity.override", 5)
    assert daemon.mesh.node.vector() == before
    with pytest.raises(BadRequest):
        daemon.settings.set_for_cluster("capacity.override", -1)
    with pytest.raises(KeyNotFound):
        daemon.settings.unset_for_cluster("capacity.slots_per_worker")
    assert daemon.mesh.node.vector() == before


@pytest.mark.req("CTL-3", "SYN-16", "REG-4")
async def test_a_reload_adds_changes_and_removes_the_workers_of_the_file(tmp_path: Path) -> None:
    FileDaemon.path = toml_of(tmp_path, URL)
    daemon = FileDaemon()
    done = await daemon.reloader.reload()
    assert done.workers.added == (URL,)
    daemon.plane.register(declared_spec(OTHER), 0.0)  # by hand: no reload touches it
    toml_of(tmp_path, URL).write_text(f'[[worker]]\nurl = "{URL}"\npriority = 7\n')
    assert (await daemon.reloader.reload()).workers.changed == (URL,)
    assert (await daemon.reloader.reload()).workers[:3] == ((), (), ())
    toml_of(tmp_path)
    done = await daemon.reloader.reload()
    assert done.workers.removed == (URL,)
    draining = daemon.plane.registry.by_url(URL)
    assert draining is not None
    assert draining.status == "draining"
    assert daemon.plane.registry.by_url(OTHER) is not None


@pytest.mark.req("SYN-16")
async def test_a_worker_that_left_the_file_while_the_daemon_was_down_goes_at_the_next_start(
    tmp_path: Path,
) -> None:
    FileDaemon.path = toml_of(tmp_path, URL, OTHER)
    daemon = FileDaemon()
    store = daemon.mesh.node.store
    DeclaredWorkers(daemon.plane, store).take(declared_workers(daemon.reread()), 0.0)
    toml_of(tmp_path, OTHER)
    taken = DeclaredWorkers(daemon.plane, store).take(declared_workers(daemon.reread()), 1.0)
    assert taken[:3] == ((), (), (URL,))
    assert [worker.url for worker in daemon.plane.registry.list().workers] == [OTHER]


@pytest.mark.req("CTL-5", "CTL-3")
@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "[capacity]\noverride = 70000\n",
        '[[worker]]\nurl = "no-scheme:1"\n',
        f'[[worker]]\nurl = "{URL}"\n[[worker]]\nurl = "{URL}/"\n',
        '[security]\nsecret_file = "/nonexistent/secret"\n',
    ],
)
async def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path, bad: str) -> None:
    FileDaemon.path = toml_of(tmp_path, URL, extra="[capacity]\noverride = 5\n")
    daemon = FileDaemon()
    await daemon.reloader.reload()
    (tmp_path / "meshd.toml").write_text(bad)
    with pytest.raises(ConfigError) as caught:
        await daemon.reloader.reload()
    assert caught.value.field
    assert daemon.config.capacity.override == 5
    assert daemon.plane.registry.by_url(URL) is not None


@pytest.mark.req("SYN-12")
async def test_a_reload_takes_on_another_secret(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one secret that is long\n")
    FileDaemon.path = toml_of(tmp_path, extra=f'[security]\nsecret_file = "{secret}"\n')
    daemon = FileDaemon()
    daemon.plane.register(parse_spec({"url": URL, "api_key": "k3y"}), 0.0)

    async def sealed() -> bytes | None:
        await daemon.reloader.reload()
        daemon.mesh.after_write()
        (key,) = daemon.mesh.node.store.visible_keys("worker:")
        entry = daemon.mesh.node.store.visible(key)
        assert entry is not None
        return decode_record(entry.value).sealed_key

    first = await sealed()
    secret.write_text("another secret that is long\none secret that is long\n")
    second = await sealed()
    assert first is not None
    assert second is not None
    assert first != second
    sealer = cluster_sealer(daemon.config)
    assert sealer is not None
    worker = daemon.plane.registry.by_url(URL)
    assert worker is not None
    assert sealer.unseal(worker.id, second) == "k3y"


async def test_a_daemon_without_files_says_so() -> None:
    daemon = FakeDaemon()
    declared = DeclaredWorkers(daemon.plane, daemon.mesh.node.store)
    with pytest.raises(Unavailable):
        await Reloader(daemon.settings, declared, daemon.mesh, None).reload()
