"""Settings that change while the daemon runs: what is in force here, and bringing the parts in line with it.

Owns the configuration in force. Level-triggered: a changed key of the store, or files that were read again,
only say "look again"; what then happens follows from the node's own configuration and the store as they are.
Parts are told only of what is different for them. A cluster-wide value that cannot be used is left out, and
logged once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from meshd.config import Config
from meshd.config_live import (
    CLUSTER_WIDE,
    CONFIG_PREFIX,
    RELOADABLE,
    Row,
    checked_value,
    encode_value,
    settle,
)
from meshd.errors import ConfigError, KeyNotFound
from meshd.workers.capacity import capacity_settings
from meshd.workers.core import PlaneSettings
from meshd.workers.health_machine import node_settings
from meshd.workers.sealing import ClusterSealer, parse_secrets

if TYPE_CHECKING:
    from meshd.workers.capacity_tracker import CapacityTracker
    from meshd.workers.plane import WorkerPlane
    from meshd.workers.publishing import Sealer
    from meshd.workers.store_view import Store

_log = structlog.get_logger("meshd.settings")


class LogControl(Protocol):
    """The level of the log."""

    level: str

    def set_level(self, level: str) -> None:
        """Log from `level` on."""


class LiveSettings:
    """The settings in force on one node, and the parts that follow them."""

    def __init__(
        self,
        own: Config,
        store: Store,
        plane: WorkerPlane,
        capacity: CapacityTracker,
        log_control: LogControl,
        sealer: Sealer | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        notice: Callable[[str, str, dict[str, object]], None] | None = None,
    ) -> None:
        """Begin with `own`, the node's own configuration; the parts already follow it. Call `apply` next.

        `clock` gives monotonic seconds; `notice` gets level, event and fields, in place of the log.
        """
        self._clock = clock
        self._notice = notice or _log_notice
        self._own = own
        self._store = store
        self._plane = plane
        self._capacity = capacity
        self._log_control = log_control
        self._sealer = sealer
        self._rows: tuple[Row, ...] = ()
        self._told: dict[str, str] = {}
        self._changed = trio.Event()
        self.config = own
        """The configuration in force: the node's own with the cluster's values worked in."""

    @property
    def own(self) -> Config:
        """The node's own configuration, without the cluster's values."""
        return self._own

    # --- following ----------------------------------------------------------------------------------

    def keys_changed(self, keys: Iterable[str]) -> None:
        """Visible keys of the store changed."""
        if any(key.startswith(CONFIG_PREFIX) for key in keys):
            self.apply()

    def rebase(self, own: Config, sealer: Sealer | None) -> None:
        """Take on a node's own configuration that was read anew, and the secrets that go with it."""
        self._own = own
        self._sealer = sealer
        self.apply(reread=True)

    def apply(self, *, reread: bool = False) -> None:
        """Bring every part in line with what is in force now.

        `reread`: the secrets may be others, and a level that was set for this run only is over.
        """
        before = self.config
        settled = settle(self._own, self._stored())
        self._rows = settled.rows
        self._tell(settled.problems())
        self.config = now = settled.config
        health = plane_settings(now)
        if reread or health != self._plane.settings:
            self._plane.reconfigure(health, self._clock(), sealer=self._sealer)
        if now.capacity != before.capacity:
            self._capacity.apply_settings(capacity_settings(now.capacity))
        if now.log.level != (self._log_control.level if reread else before.log.level):
            self._log_control.set_level(now.log.level)
        for name in RELOADABLE:
            if now.get(name) != before.get(name):
                fields = {"setting": name, "value": now.get(name), "source": now.sources.get(name)}
                self._notice("info", "setting_changed", fields)
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until settings may have changed."""
        await self._changed.wait()

    def _stored(self) -> Mapping[str, bytes]:
        found = {}
        for key in self._store.visible_keys(CONFIG_PREFIX):
            entry = self._store.visible(key)
            if entry is not None:
                found[key.removeprefix(CONFIG_PREFIX)] = entry.value
        return found

    def _tell(self, problems: Mapping[str, str]) -> None:
        for name, problem in problems.items():
            if self._told.get(name) != problem:
                self._notice("warning", "cluster_setting_left_out", {"setting": name, "reason": problem})
        self._told = dict(problems)

    # --- reading and writing ------------------------------------------------------------------------

    def rows(self) -> list[Row]:
        """Return every setting that the cluster may set, and what else it did set, in a fixed order."""
        level = self._log_control.level
        return [
            row._replace(in_force=level, source="PUT /log-level")
            if row.key == "log.level" and row.in_force != level
            else row
            for row in self._rows
        ]

    def row(self, name: str) -> Row:
        """Return one of them; raises KeyNotFound."""
        for row in self.rows():
            if row.key == name:
                return row
        raise KeyNotFound(CONFIG_PREFIX + name)

    def set_for_cluster(self, name: str, value: object) -> Row:
        """Set a setting for the whole cluster; a value that it has already changes nothing.

        Raises BadRequest for a setting or value that cannot be, StoreFull, having changed nothing. What it
        causes is to be performed by the mesh's `after_write`.
        """
        stored = encode_value(checked_value(name, value))
        present = self._store.visible(CONFIG_PREFIX + name)
        if present is None or present.value != stored:
            self._store.put(CONFIG_PREFIX + name, stored)
            self.apply()
        return self.row(name)

    def unset_for_cluster(self, name: str) -> Row | None:
        """Take a cluster-wide value back; returns the row as it is then, None for an unknown name.

        Raises KeyNotFound if it is not set.
        """
        key = CONFIG_PREFIX + name
        if self._store.visible(key) is None:
            raise KeyNotFound(key)
        self._store.delete(key)
        self.apply()
        return self.row(name) if name in CLUSTER_WIDE else None


def _log_notice(level: str, event: str, fields: dict[str, object]) -> None:
    (_log.warning if level == "warning" else _log.info)(event, **fields)


def plane_settings(config: Config) -> PlaneSettings:
    """Return what the worker plane takes from a configuration."""
    health = config.health
    return PlaneSettings(
        health=node_settings(health),
        check_imports=health.check_imports,
        remove_failed_workers=health.remove_failed_workers,
        publish_loopback=config.sync.publish_loopback,
        on_start=config.sync.on_start,
        startup_grace_s=config.sync.startup_grace_s,
    )


def cluster_sealer(config: Config) -> ClusterSealer | None:
    """Return what seals API keys, if the cluster has a secret. Raises ConfigError for a bad secret file."""
    path = config.security.secret_file
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("security.secret_file", f"{path} cannot be read: {error}") from error
    return ClusterSealer(config.node.cluster, parse_secrets(text))
