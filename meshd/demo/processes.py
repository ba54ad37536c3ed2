"""A `meshd` daemon and an inference server as handles: start, wait, stop, start again.

A handle outlives the process that it stands for: name, data directory and ports stay the
same over restarts, so that a daemon started again is the same node at the same place.
Nothing here retries silently: whoever ends too early or is not ready in time raises
`ChildFailed` with the end of its log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshd.demo.children import Child, ChildFailed, Children
from meshd.demo.client import Reply, call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READY_WITHIN_S = 30.0
"""Time limit for a process to become ready: generous, since a busy machine may start several at once."""

_POLL_S = 0.02


def program(name: str) -> str:
    """The installed program beside this Python (`meshd`, `meshctl`), else the one on PATH.

    Raises FileNotFoundError with the way out if there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program {name} is not installed: run `make setup`, or `pip install .`")
    return found


class Process:
    """What daemons and servers have in common: at most one running process at a time."""

    def __init__(self, children: Children, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._children = children
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The present process; raises RuntimeError if none was started."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child

    @property
    def running(self) -> bool:
        """True while its process runs."""
        return self._child is not None and self._child.running

    def stop(self, timeout_s: float = 10.0) -> int:
        """Stop it in order (SIGTERM) and return the exit code; raises ChildFailed if it takes longer."""
        return self.child.terminate(timeout_s)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        self.child.kill()

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._child = self._children.spawn(self.name, argv, self.log, env)

    def _check_alive(self, deadline: float, what: str) -> None:
        if not self.running:
            raise ChildFailed(f"{self.name} ended before it was {what}:\n{self.child.log_tail()}")
        if time.monotonic() > deadline:
            raise ChildFailed(f"{self.name} is not {what} in time:\n{self.child.log_tail()}")
        self._children.pause(_POLL_S)


class Daemon(Process):
    """One `meshd run` with a data directory of its own, on loopback.

    Without `ports` the system picks both ports at the first start; they are kept for later
    starts. `settings` are given as `--set key=value`.
    """

    def __init__(
        self,
        children: Children,
        folder: Path,
        name: str,
        *,
        cluster: str = "demo",
        join: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        ports: tuple[int, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(children, name, folder / f"{name}.log")
        self.data_dir = folder / name
        self.cluster = cluster
        self.join = tuple(join)
        self.settings = dict(settings or {})
        self.env = dict(env or {})
        mesh_port, api_port = ports or (0, 0)
        self._mesh = f"127.0.0.1:{mesh_port}"
        self._api = f"127.0.0.1:{api_port}"

    @property
    def mesh(self) -> str:
        """Where peers reach it, as `host:port`; port 0 until it first started."""
        return self._mesh

    @property
    def api(self) -> str:
        """Where its HTTP API listens, as `host:port`; port 0 until it first started."""
        return self._api

    @property
    def socket(self) -> str:
        """Its unix socket as `client` and `meshctl` take it: `unix:PATH`."""
        return f"unix:{self.data_dir / 'meshd.sock'}"

    def argv(self) -> list[str]:
        """The command line of the next start."""
        argv = [program("meshd"), "run", "--node-name", self.name, "--cluster", self.cluster]
        argv += ["--data-dir", str(self.data_dir), "--mesh", self._mesh, "--api", self._api]
        argv += ["--log-format", "json"]
        for address in self.join:
            argv += ["--join", address]
        for key, value in self.settings.items():
            argv += ["--set", f"{key}={value}"]
        return argv

    def start(self) -> None:
        """Start the process; returns at once (see `wait_ready`)."""
        self._spawn(self.argv(), self.env)

    def wait_ready(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until its endpoints are known and `/readyz` says 200."""
        deadline = time.monotonic() + timeout_s
        while self._api.endswith(":0") and not self._read_endpoints():
            self._check_alive(deadline, "listening")
        while not self._says_ready():
            self._check_alive(deadline, "ready")

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Reply:
        """One request to its API; see `client.call`."""
        return call(self._api, method, path, body, **options)

    def get(self, path: str) -> Any:
        """The JSON that a GET answers with 200; raises HttpError otherwise."""
        return self.call("GET", path).expect(200).json()

    def workers(self) -> dict[str, dict[str, Any]]:
        """Every worker it lists, by URL."""
        return {worker["url"]: worker for worker in self.get("/workers")["workers"]}

    def register(self, spec: Mapping[str, object]) -> str:
        """Register a worker and return its id; raises HttpError if that is refused."""
        return str(self.call("POST", "/workers", dict(spec)).expect(202).json()["worker_id"])

    def _says_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "/readyz", timeout_s=2.0).status == 200
        return False

    def _read_endpoints(self) -> bool:
        try:
            endpoints = json.loads((self.data_dir / "endpoints.json").read_text("utf-8"))
        except FileNotFoundError:
            return False
        self._mesh, self._api = endpoints["mesh"], endpoints["api"]
        return True


class InferenceServer(Process):
    """One `openai_server` process; `options` are its command-line options without the dashes."""

    def __init__(
        self, children: Children, folder: Path, name: str, *, model: str = "tiny", **options: object
    ) -> None:
        super().__init__(children, name, folder / f"{name}.log")
        self.model = model
        self._options = options
        self._url_file = folder / f"{name}.url"
        self._port = 0

    @property
    def url(self) -> str:
        """Its base URL; known once it was ready."""
        return f"http://{self.address}"

    @property
    def address(self) -> str:
        """Its `host:port`."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the process, on the same port as before if it ran before."""
        self._url_file.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "meshd.demo.openai_server", "--name", self.name, "--model", self.model]
        argv += ["--port", str(self._port), "--url-file", str(self._url_file)]
        for option, value in self._options.items():
            argv += [f"--{option.replace('_', '-')}", str(value)]
        self._spawn(argv)

    def wait_listening(self, timeout_s: float = READY_WITHIN_S) -> None:
        """Wait until it listens (its `/health` may still say 503)."""
        deadline = time.monotonic() + timeout_s
        while not self._url_file.exists():
            self._check_alive(deadline, "listening")
        self._port = int(self._url_file.read_text("utf-8").rpartition(":")[2])

    def set_health(self, status: int = 200, delay_s: float = 0.0) -> None:
        """Choose what its `/health` answers from now on."""
        wanted = {"health_status": status, "health_delay_s": delay_s}
        call(self.address, "PUT", "/control", wanted).expect(200)

    def counts(self) -> dict[str, int]:
        """How many health checks and completions it served: keys `health`, `completions`."""
        counts: dict[str, int] = call(self.address, "GET", "/control").expect(200).json()["counts"]
        return counts
