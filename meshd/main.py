"""Builds a daemon out of its rooms, starts them in order, stops them in the reverse order. Nothing else.

Disk first and last: what is accepted while the daemon stops is still written. Then the mesh, then the loops
that act on workers, then the API, so that whoever gets an answer gets a true one.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import trio

import meshd
from meshd.api import ApiEndpoints, serve_api
from meshd.build import build_node, build_plane
from meshd.config import Config, parse_address
from meshd.daemon import Daemon
from meshd.discovery import dns, static, zeroconf
from meshd.errors import ConfigError, Unavailable
from meshd.live_settings import LiveSettings, cluster_sealer
from meshd.reload import DeclaredWorkers, Reloader, Reread, Taken, declared_workers
from meshd.runtime.endpoints import remove_endpoints, write_endpoints
from meshd.runtime.logs import setup_logs
from meshd.runtime.mesh import Mesh
from meshd.runtime.persister import ThreadPersister
from meshd.runtime.sdnotify import READY, STOPPING, notify
from meshd.runtime.transport import TcpTransport
from meshd.storage import open_sqlite
from meshd.workers.capacity import capacity_settings
from meshd.workers.capacity_loop import run_capacity_loop
from meshd.workers.capacity_tracker import CapacityTracker
from meshd.workers.check_grpc import GrpcChecker
from meshd.workers.check_http import HttpChecker
from meshd.workers.check_ipc import IpcChecker
from meshd.workers.health_loop import HealthLoop
from meshd.workers.http_client import HttpClient
from meshd.workers.inbound_loop import run_inbound_loop
from meshd.workers.publish_loop import run_publish_loop
from meshd.workers.reconcile_loop import run_reconcile_loop
from meshd.workers.server_info import ServerInfo

_log = structlog.get_logger("meshd")


async def run_daemon(
    config: Config,
    reread: Reread | None = None,
    *,
    task_status: trio.TaskStatus[Daemon] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one daemon until it is told to stop; starts with the daemon once it is ready.

    `reread` reads the configuration again, for a reload. Raises ConfigError, StorageError (DataDirMismatch,
    DataDirLocked) or OSError if it cannot start.
    """
    log_control = setup_logs(config.log.level, config.log.format)
    for warning in config.warnings:
        _log.warning("setting_to_check", setting=warning.field, reason=warning.message)
    declared = declared_workers(config)
    data_dir = config.node.data_dir
    storage = open_sqlite(data_dir, config.store.durability, config.node.name, config.node.cluster)
    state = await trio.to_thread.run_sync(storage.load)
    for problem in state.problems:
        _log.error("storage_problem", problem=problem, set_aside=state.set_aside)
    persister = ThreadPersister(storage)
    node = build_node(config, state, _generator(), trio.current_time(), wall_ms)
    mesh = Mesh(node, TcpTransport(), persister)
    sealer = cluster_sealer(config)
    plane = build_plane(config, node, _generator(), trio.current_time(), sealer)
    capacity = CapacityTracker(
        plane.events, lambda: plane.registry.list().workers, capacity_settings(config.capacity)
    )
    settings = LiveSettings(config, node.store, plane, capacity, log_control, sealer)
    declared_before = DeclaredWorkers(plane, node.store)
    reloader = Reloader(settings, declared_before, mesh, reread)
    daemon = Daemon(settings, mesh, plane, capacity, log_control, meshd.__version__, reloader)
    async with trio.open_nursery() as disk:
        await disk.start(persister.run)
        async with trio.open_nursery() as net:
            await net.start(partial(mesh.run, config.mesh.bind, advertise=config.mesh.advertise))
            async with trio.open_nursery() as work:
                await _start_work(daemon, partial(declared_before.take, declared), work)
                async with trio.open_nursery() as front:
                    endpoints: ApiEndpoints = await front.start(serve_api, daemon)
                    _declare_ready(daemon, endpoints, data_dir)
                    task_status.started(daemon)
                    await daemon.stop.wait()
                    _log.info("stopping", withdraw=daemon.withdrawing)
                    notify(STOPPING)
                    remove_endpoints(data_dir)
                daemon.withdraw_if_asked()
                await mesh.leave(daemon.withdrawing)
                await mesh.flush()
                work.cancel_scope.cancel()
            net.cancel_scope.cancel()
        disk.cancel_scope.cancel()
    _log.info("stopped")


def wall_ms() -> int:
    """The wall clock in ms since 1970: for display and for warnings, never for decisions."""
    return time.time_ns() // 1_000_000


def _generator() -> random.Random:
    return random.Random(secrets.randbits(128))


async def _start_work(daemon: Daemon, declare: Callable[[float], Taken], work: trio.Nursery) -> None:
    config, mesh, plane, settings = daemon.config, daemon.mesh, daemon.plane, daemon.settings
    http, grpc = HttpClient(), GrpcChecker()
    http_checker = HttpChecker(http)
    health = HealthLoop(
        plane,
        {
            "http": http_checker,
            "https": http_checker,
            "grpc": grpc,
            "grpcs": grpc,
            "ipc": IpcChecker(),
        },
    )
    plane.on_wake(health.wake)
    settings.apply()
    mesh.subscribe_keys(settings.keys_changed)
    await work.start(run_publish_loop, plane, mesh)
    await work.start(run_inbound_loop, plane, mesh)
    await work.start(
        partial(run_reconcile_loop, changed=settings.changed),
        plane,
        mesh,
        lambda: settings.config.sync.reconcile_interval_s,
    )
    await work.start(health.run)
    await work.start(run_capacity_loop, daemon.capacity, plane.registry.by_url, ServerInfo(http, grpc))
    declare(trio.current_time())
    mesh.after_write()
    await work.start(static.run, config.mesh.join, mesh.add_addresses)
    if config.discovery.dns:
        await work.start(dns.run, config.discovery.dns, mesh.add_addresses)
    if config.discovery.zeroconf:
        advertise = config.mesh.advertise
        announcement = zeroconf.Announcement.for_node(
            config.node.name,
            config.node.cluster,
            meshd.__version__,
            parse_address(mesh.address),
            parse_address(advertise) if advertise else None,
        )
        await work.start(zeroconf.run, announcement, mesh.add_addresses)
    await work.start(_signals, daemon)


async def _signals(daemon: Daemon, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """SIGTERM and SIGINT stop the daemon, SIGHUP has it read its files again."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            task_status.started()
            async for number in received:
                _log.info("signal", name=signal.Signals(number).name)
                if number == signal.SIGHUP and not (on_terminal and _terminal_is_gone()):
                    nursery.start_soon(_reload, daemon)
                    continue
                daemon.withdrawing = daemon.withdrawing or daemon.config.sync.on_stop == "withdraw"
                daemon.stop.set()


async def _reload(daemon: Daemon) -> None:
    try:
        await daemon.reloader.reload()
    except ConfigError:
        return  # nothing was changed, and the log says why
    except Unavailable as error:
        _log.warning("reload_unavailable", reason=error.message)


def _terminal_is_gone() -> bool:
    """Whether SIGHUP means what it meant at first: the terminal that the daemon runs in was closed."""
    try:
        os.tcgetpgrp(2)
    except OSError:
        return True
    return False


def _declare_ready(daemon: Daemon, endpoints: ApiEndpoints, data_dir: Path) -> None:
    node, cluster, mesh = daemon.config.node.name, daemon.config.node.cluster, daemon.mesh.address
    write_endpoints(data_dir, node=node, mesh=mesh, api=endpoints.tcp, socket=endpoints.socket)
    daemon.started = True
    notify(READY)
    _log.info("ready", node=node, cluster=cluster, mesh=mesh, api=endpoints.tcp, socket=endpoints.socket)
