"""Reading files, conf.d and variables again while the daemon runs, and taking on what can be taken on.

Owns the list of workers that the node's files declare. Rules: everything is read and checked before
anything is changed, so a bad file changes nothing; what a running daemon cannot take on is named as needing
a restart; a worker that a file declared once and declares no more is removed, also if that happened while
the daemon was down; a worker that somebody registered otherwise is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog
import trio

from meshd.config import Config
from meshd.config_live import reloaded
from meshd.errors import BadRequest, ConfigError, MeshdError, Unavailable, WorkerNotFound, WorkerOwnedByPeer
from meshd.live_settings import LiveSettings, cluster_sealer
from meshd.workers.model import WorkerSpec, parse_spec
from meshd.workers.publish_loop import Sender

if TYPE_CHECKING:
    from meshd.workers.plane import WorkerPlane
    from meshd.workers.store_view import Meta

_log = structlog.get_logger("meshd.reload")

META_DECLARED = "declared"
"""Where a node's disk keeps the URLs that its files declared, one a line."""


class Taken(NamedTuple):
    """What became of the declared workers: URLs, and for those refused the reason."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class Reloaded(NamedTuple):
    """What reading again did: settings that hold now, settings that wait for a restart, and workers."""

    applied: tuple[str, ...]
    restart: tuple[str, ...]
    workers: Taken

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        workers = self.workers._asdict()
        workers["refused"] = [{"url": url, "error": error} for url, error in self.workers.refused]
        return {"applied": self.applied, "needs_restart": self.restart, "workers": workers}


class Reread(Protocol):
    """Reads the node's own configuration again."""

    def __call__(self) -> Config:
        """Return it. Blocks; raises ConfigError."""


class DeclaredWorkers:
    """The `[[worker]]` entries of this node's files."""

    def __init__(self, plane: WorkerPlane, meta: Meta) -> None:
        self._plane = plane
        self._meta = meta
        stored = dict(meta.meta_items(META_DECLARED)).get(META_DECLARED, b"")
        self._urls = tuple(filter(None, stored.decode("utf-8", "replace").split("\n")))

    def take(self, specs: Iterable[WorkerSpec], now: float) -> Taken:
        """Bring the declared workers to these; to be called once former workers are restored."""
        added, changed, removed, refused = [], [], [], []
        wanted = {spec.url: spec for spec in specs}
        for url, spec in wanted.items():
            before = self._plane.registry.by_url(url)
            try:
                after = self._plane.register_or_replace(spec, now)
            except MeshdError as error:
                refused.append((url, error.message))
                continue
            if before is None or not before.is_local:
                added.append(url)
            elif after.revision != before.revision:
                changed.append(url)
        for url in self._urls:
            if url not in wanted and self._removed(url, now):
                removed.append(url)
        if self._urls != tuple(wanted):
            self._urls = tuple(wanted)
            self._meta.put_meta(META_DECLARED, "\n".join(wanted).encode() or None)
        for url, reason in refused:
            _log.error("declared_worker_refused", url=url, error=reason)
        return Taken(tuple(added), tuple(changed), tuple(removed), tuple(refused))

    def _removed(self, url: str, now: float) -> bool:
        worker = self._plane.registry.by_url(url)
        if worker is None or not worker.is_local:
            return False
        try:
            self._plane.remove(worker.id, now)
        except (WorkerNotFound, WorkerOwnedByPeer):
            return False
        return True


class Reloader:
    """Reads again when asked to, one time after the other."""

    def __init__(
        self, live: LiveSettings, declared: DeclaredWorkers, mesh: Sender, reread: Reread | None
    ) -> None:
        """`reread` is None for a daemon that was not started from files."""
        self._live = live
        self._declared = declared
        self._mesh = mesh
        self._reread = reread
        self._one_at_a_time = trio.Lock()
        self.prepare: list[Callable[[Config], Callable[[], None]]] = []
        """Parts with files of their own: each reads them in a thread (raising ConfigError) and returns what
        puts them into force."""

    async def reload(self) -> Reloaded:
        """Read again and take on what can be. Raises ConfigError having changed nothing, or Unavailable."""
        if self._reread is None:
            raise Unavailable("this daemon was started without files that could be read again")
        async with self._one_at_a_time:
            try:
                fresh = await trio.to_thread.run_sync(self._reread)
                config, applied, restart = reloaded(self._live.own, fresh)
                specs = declared_workers(config)
                sealer = await trio.to_thread.run_sync(cluster_sealer, config)
                commits = [await trio.to_thread.run_sync(prepare, config) for prepare in self.prepare]
            except ConfigError as error:
                _log.warning("reload_refused", error=error.message, hint="nothing was changed")
                raise
            self._live.rebase(config, sealer)
            for commit in commits:
                commit()
            workers = self._declared.take(specs, trio.current_time())
            self._mesh.after_write()
        done = Reloaded(tuple(applied), tuple(restart), workers)
        _log.info("reloaded", **done.as_dict())
        for name in restart:
            _log.warning("setting_needs_restart", setting=name, source=fresh.sources.get(name))
        for warning in fresh.warnings:
            _log.warning("setting_to_check", setting=warning.field, reason=warning.message)
        return done


def declared_workers(config: Config) -> list[WorkerSpec]:
    """Return the workers of a configuration's files. Raises ConfigError naming the one at fault."""
    specs: dict[str, WorkerSpec] = {}
    for number, table in enumerate(config.worker):
        try:
            spec = parse_spec(table)
        except BadRequest as error:
            raise ConfigError(f"worker[{number}].{error.field}", str(error)) from error
        if spec.url in specs:
            raise ConfigError(f"worker[{number}].url", f"{spec.url} is declared twice")
        specs[spec.url] = spec
    return list(specs.values())
