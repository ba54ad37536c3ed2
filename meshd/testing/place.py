"""A node of a simulated cluster as a test holds it: it outlives its processes, as a machine does.

Owns the disk, the clocks and the configuration, and the commands that a gateway or an operator would give
through the API. A command returns as the API would answer, or raises the same errors; that it is on the disk
is noted by the checks when the disk has it, which is when the API would answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from meshd.config import Config, load_config
from meshd.config_live import CONFIG_PREFIX
from meshd.errors import MeshdError
from meshd.storage.memory import MemoryDisk
from meshd.testing.clock import SimClock
from meshd.testing.process import Process
from meshd.workers.capacity import CapacitySnapshot
from meshd.workers.model import parse_spec
from meshd.workers.plane import WorkerPlane
from meshd.workers.record import worker_id
from meshd.workers.urls import normalise_url
from meshd.workers.worker import Worker

if TYPE_CHECKING:
    from meshd.protocol.node import MeshNode
    from meshd.testing.cluster import SimCluster

T = TypeVar("T")


class NotRunning(MeshdError):
    """The node's process does not run, or is stopped: nobody answers."""

    def __init__(self, name: str) -> None:
        super().__init__(f"node {name} does not run", code="NOT_RUNNING", http_status=503)


class SimNode:
    """One node. `settings` are those of the configuration file, by dotted name."""

    def __init__(self, cluster: SimCluster, name: str, settings: dict[str, object]) -> None:
        if "node.name" in settings:
            raise ValueError("node.name is no setting of a simulated node: it is named when it is made")
        self.name = name
        self.settings = settings
        self.disk = MemoryDisk()
        self.clock = SimClock()
        self.lives = 0
        self.newer = False
        """Whether its next life speaks as a later version of meshd would."""
        self.harmed = False
        """Whether its disk lost something that it had said to have."""
        self.image: MemoryDisk | None = None
        """Its disk as it was when an image of it was last kept."""
        self.write_s = 0.002
        """How long its disk takes for a transaction, in seconds."""
        self.process: Process | None = None
        self._cluster = cluster
        self.config = configuration(name, settings)

    def __repr__(self) -> str:
        """Name the node and what it does."""
        does = "is down" if self.process is None else "is stopped" if self.process.paused else "runs"
        return f"<SimNode {self.name} {does}>"

    # -- what it is ------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether its process runs (it may be stopped for the moment)."""
        return self.process is not None

    @property
    def node(self) -> MeshNode:
        """The real mesh node. Raises NotRunning."""
        return self.running.node

    @property
    def plane(self) -> WorkerPlane:
        """The real worker plane. Raises NotRunning."""
        return self.running.plane

    @property
    def running(self) -> Process:
        """Its process. Raises NotRunning."""
        if self.process is None:
            raise NotRunning(self.name)
        return self.process

    @property
    def stranger(self) -> str:
        """The other node to whose name its disk is bound, so that it cannot start from it; "" if none."""
        bound = self.disk.content()[2].get("node", b"").decode()
        return "" if bound == self.name else bound

    # -- what it sees ----------------------------------------------------------------------------

    def workers(self) -> dict[str, Worker]:
        """URL -> worker, as this node's API would list them."""
        return {worker.url: worker for worker in self.plane.registry}

    def worker(self, url: str) -> Worker | None:
        """The worker of a URL, or None."""
        return self.plane.registry.by_url(normalise_url(url))

    def routable(self) -> set[str]:
        """URLs to which this node's gateway would send requests now."""
        return {worker.url for worker in self.plane.registry if worker.is_ready}

    def members(self) -> dict[str, str]:
        """Other members and their states: alive, suspect, down or left."""
        return {member.name: member.state for member in self.node.roster}

    def peers(self) -> set[str]:
        """Nodes to which it holds an open connection."""
        return set(self.node.connections.open)

    def digest(self) -> int:
        """One hash over all visible keys and values."""
        return self.node.map.digest

    def why(self, url: str) -> dict[str, object]:
        """Why a URL is or is not routable here."""
        return self.plane.explain_url(url, self.running.now)

    def setting(self, name: str) -> object:
        """The value of a setting that is in force on this node."""
        return self.running.settings.config.get(name)

    def capacity(self, model: str | None = None) -> CapacitySnapshot:
        """The capacity of the workers that are routable here, of all or for one model."""
        tracker = self.running.capacity
        return tracker.read() if model is None else tracker.for_model(model)

    def config_values(self) -> dict[str, bytes]:
        """The cluster-wide settings that are visible here."""
        values = {}
        for key in sorted(self.node.visible_keys(CONFIG_PREFIX)):
            found = self.node.visible(key)
            if found is not None:
                values[key.removeprefix(CONFIG_PREFIX)] = found.value
        return values

    # -- commands --------------------------------------------------------------------------------

    def register(self, url: str, **fields: Any) -> Worker:
        """Register a worker, as `POST /workers` does. Raises what that answers with."""
        spec = parse_spec({"url": url, **fields})
        return self._command(f"register {spec.url}", lambda now: self.plane.register(spec, now), spec.url)

    def register_or_replace(self, url: str, **fields: Any) -> Worker:
        """Register, or replace what differs."""
        spec = parse_spec({"url": url, **fields})
        return self._command(
            f"register {spec.url}", lambda now: self.plane.register_or_replace(spec, now), spec.url
        )

    def patch(self, url: str, **fields: Any) -> Worker:
        """Change some fields of an own worker."""
        id = self._served(url)
        return self._command(f"patch {url}", lambda now: self.plane.patch(id, fields, None, now), url)

    def remove(self, url: str, drain: bool = True) -> None:
        """Remove an own worker, after it has drained."""
        id = self._served(url)
        self._command(f"remove {url}", lambda now: self.plane.remove(id, now, drain), url, removes=True)

    def drain(self, url: str) -> Worker:
        """Take an own worker out of rotation."""
        id = self._served(url)
        return self._command(f"drain {url}", lambda now: self.plane.drain(id, now), url)

    def undrain(self, url: str) -> Worker:
        """Bring it back."""
        id = self._served(url)
        return self._command(f"undrain {url}", lambda now: self.plane.undrain(id, now), url)

    def set_config(self, name: str, value: object) -> None:
        """Set a cluster-wide setting, or unset it (None), as `meshctl config set` does.

        Raises what the API answers with: for a setting or value that cannot be, or one that is not set.
        """
        settings = self.running.settings

        def write(now: float) -> None:
            if value is None:
                settings.unset_for_cluster(name)
            else:
                settings.set_for_cluster(name, value)

        self._command(f"config {name}={value!r}", write, "")

    def forget(self, owner: str) -> bool:
        """Have every node drop a dead owner's workers. False if it lives, or nothing of it is held."""
        done = False

        def forget(now: float) -> None:
            nonlocal done
            done = self.node.forget_everywhere(owner, now)

        self._command(f"forget {owner}", forget, "")
        if done:
            self._cluster.checks.forgotten(owner)
        return done

    def id_of(self, url: str) -> str:
        """The id under which this node registers a URL."""
        return worker_id(self.name, normalise_url(url))

    def _served(self, url: str) -> str:
        """The id under which a client finds a URL here: an own worker's, or that of the import shown."""
        worker = self.plane.registry.by_url(normalise_url(url))
        return self.id_of(url) if worker is None or worker.is_local else worker.id

    def _command(self, what: str, action: Callable[[float], T], url: str, removes: bool = False) -> T:
        process = self.running
        if process.paused or process.leaving:
            raise NotRunning(self.name)
        url = normalise_url(url) if url else ""
        checks = self._cluster.checks
        checks.commanded(process, url, removes)
        try:
            result = action(process.now)
        except MeshdError as error:
            process.note("command", f"{what}: refused, {error.code}")
            raise
        process.note("command", what)
        process.dispatch()
        if url:
            write = checks.written(process, url, removes)
            process.persister.when_committed(lambda: checks.acknowledged(process, write))
        return result


class Places(dict[str, SimNode]):
    """The nodes of a cluster by name."""

    def __missing__(self, name: str) -> SimNode:
        """Raise ValueError: a test that means a node which is not there must not pass."""
        raise ValueError(f"there is no node {name!r}; there are {', '.join(self)}")


def configuration(name: str, settings: dict[str, object]) -> Config:
    """The checked configuration of a simulated node. Raises ConfigError."""
    flags = {key: value if isinstance(value, str) else _text(value) for key, value in settings.items()}
    return load_config(None, {}, {**flags, "node.name": name}, [])


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
