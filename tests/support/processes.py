"""Installed `meshd` programs as processes, for tests and benchmarks.

`Mesh` starts daemons on loopback with data directories of their own, `eventually` waits for
a condition, `Watch` polls a daemon without pause in a thread, `EventStream` reads its
events. Whatever is started here is ended by the `Children` that it was given.

Waiting is always for a condition, with a generous limit (`PATIENCE_S`): a busy machine may
be slow. Where a requirement states a limit, the test measures the time itself and asserts it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from meshd.demo.children import Children
from meshd.demo.client import Connection, HttpError
from meshd.demo.processes import Daemon

PATIENCE_S = 30.0
"""How long a test waits for what must come true, in seconds, where no requirement says less."""

_POLL_S = 0.02

_PORTS = range(18000, 30000)
"""Below the ports that the system hands out for outgoing connections, so that none of those can
sit on a daemon's port while the daemon is down for a restart."""


T = TypeVar("T")


class Reachable(Protocol):
    """Whatever has a name and an API at `host:port`."""

    @property
    def name(self) -> str:
        """What tests call it."""

    @property
    def api(self) -> str:
        """Where its API listens."""


def eventually(
    check: Callable[[], T], what: str, timeout_s: float = PATIENCE_S, every_s: float = _POLL_S
) -> T:
    """Call `check` until it returns something true, and return that.

    Refused connections and unexpected statuses count as "not yet". Raises AssertionError
    with the last answer when the time is over.
    """
    deadline = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            result = check()
            if result:
                return result
            last = result
        except (OSError, HttpError, http.client.HTTPException) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {last!r})")
        time.sleep(every_s)


def everywhere(daemons: Iterable[Daemon], check: Callable[[Daemon], object], what: str) -> None:
    """Wait until `check(daemon)` is true for each of the daemons, one after the other."""
    for daemon in daemons:
        eventually(partial(check, daemon), f"{daemon.name}: {what}")


def free_port() -> int:
    """A loopback TCP port that nothing listens on, outside the range of outgoing connections."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found")


class Mesh:
    """Several daemons of one cluster on loopback, each in `folder/<name>`.

    The first daemon is the one that the others join. Ports are pinned, so that a daemon is
    found at the same place after a restart.
    """

    def __init__(
        self,
        children: Children,
        folder: Path,
        names: Sequence[str] = ("a", "b", "c"),
        *,
        cluster: str = "e2e",
        settings: Mapping[str, object] | None = None,
        join: bool = True,
    ) -> None:
        self.children = children
        self.folder = folder
        self.cluster = cluster
        self.settings = dict(settings or {})
        self.daemons: dict[str, Daemon] = {}
        for name in names:
            self.add(name, join=join)

    def __getitem__(self, name: str) -> Daemon:
        return self.daemons[name]

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self.daemons.values())

    def add(self, name: str, *, join: bool = True) -> Daemon:
        """Another daemon, not started yet; it joins the first one unless told otherwise."""
        first = next(iter(self.daemons.values()), None)
        seeds = [first.mesh] if join and first is not None else []
        daemon = Daemon(
            self.children,
            self.folder,
            name,
            cluster=self.cluster,
            join=seeds,
            settings=self.settings,
            ports=(free_port(), free_port()),
        )
        self.daemons[name] = daemon
        return daemon

    def start(self) -> Self:
        """Start all daemons at once and wait until each is ready and sees all alive."""
        for daemon in self:
            daemon.start()
        for daemon in self:
            daemon.wait_ready()
        self.wait_met()
        return self

    def wait_met(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until every daemon sees exactly the daemons of this mesh alive."""
        wanted = set(self.daemons)
        for daemon in self:
            eventually(
                partial(_sees_exactly, daemon, wanted), f"{daemon.name} sees {sorted(wanted)}", timeout_s
            )

    def stop(self) -> None:
        """Stop all daemons that run, in order."""
        self.children.stop([daemon.child for daemon in self if daemon.running], grace_s=10.0)


MeshMaker = Callable[..., Mesh]
"""What the fixture `make_mesh` gives: `make_mesh("a", "b", settings={...})`."""


def alive(daemon: Daemon) -> set[str]:
    """The names of the members that a daemon sees alive, itself included."""
    members = daemon.get("/mesh/members")["members"]
    return {member["name"] for member in members if member["state"] == "alive"}


def _sees_exactly(daemon: Daemon, names: set[str]) -> bool:
    return alive(daemon) == names


def agree(daemons: Iterable[Daemon]) -> bool:
    """True if all daemons show the same digest over the visible map."""
    return len({daemon.get("/mesh/status")["digest"] for daemon in daemons}) == 1


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """SIGSTOP a daemon for the length of the block, then SIGCONT it."""
    daemon.child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.child.signal(signal.SIGCONT)


def log_events(daemon: Daemon) -> list[dict[str, Any]]:
    """The daemon's log lines as JSON objects; lines that are none are given as {"raw": line}."""
    events: list[dict[str, Any]] = []
    for line in daemon.log.read_text("utf-8", "replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        events.append(event if isinstance(event, dict) else {"raw": line})
    return events


class Watch:
    """Asks a daemon for its workers again and again in a thread, and notes what is wrong.

    `judge` gets each list (by URL) and returns what is wrong with it, or None. A poll
    without answer is itself noted: the daemons that are watched are never down.
    """

    def __init__(self, daemon: Reachable, judge: Callable[[dict[str, dict[str, Any]]], str | None]) -> None:
        self.polls = 0
        self.faults: list[str] = []
        self._daemon = daemon
        self._judge = judge
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {daemon.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10.0)
        assert not self._thread.is_alive(), f"the watch of {self._daemon.name} hangs"

    def _run(self) -> None:
        connection = Connection(self._daemon.api)
        started = time.monotonic()
        while not self._stop.is_set():
            at = f"{self._daemon.name} after {time.monotonic() - started:.2f} s"
            try:
                listed = connection.call("GET", "/workers").expect(200).json()["workers"]
            except (OSError, HttpError, http.client.HTTPException, ValueError) as error:
                self.faults.append(f"{at}: no list ({error!r})")
                continue
            finally:
                self.polls += 1
            by_url = {worker["url"]: worker for worker in listed}
            fault = f"a URL is listed twice: {listed}" if len(by_url) < len(listed) else self._judge(by_url)
            if fault is not None:
                self.faults.append(f"{at}: {fault}")
            self._stop.wait(_POLL_S)
        connection.close()

    def check(self) -> None:
        """Raise AssertionError if anything was wrong, or if it hardly looked."""
        assert not self.faults, f"{len(self.faults)} of {self.polls} polls, first: {self.faults[0]}"
        assert self.polls >= 10, f"{self._daemon.name} was asked only {self.polls} times"


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event; `at` is when its last line arrived (time.monotonic, seconds)."""

    at: float
    kind: str
    id: str | None
    data: Any


class EventStream:
    """Reads a daemon's `/events` in a thread until closed; `events` grows in order."""

    def __init__(self, daemon: Reachable, query: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.events: list[StreamEvent] = []
        self.ended = threading.Event()
        host, _, port = daemon.api.rpartition(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        self._http.request("GET", f"/events{query}", headers=dict(headers or {}))
        self._socket = self._http.sock
        self._answer = self._http.getresponse()
        assert self._answer.status == 200, self._answer.status
        self._thread = threading.Thread(target=self._run, name=f"events {daemon.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10.0)
        self._answer.close()
        self._http.close()

    def of(self, *kinds: str) -> list[StreamEvent]:
        """The events of these kinds so far."""
        return [event for event in list(self.events) if event.kind in kinds]

    def _run(self) -> None:
        fields: dict[str, str] = {}
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while line := self._answer.readline():
                text = line.decode("utf-8").rstrip("\r\n")
                if text:
                    name, _, value = text.partition(":")
                    value = value.removeprefix(" ")
                    fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
                elif "data" in fields:
                    kind, number = fields.get("event", "message"), fields.get("id")
                    self.events.append(
                        StreamEvent(time.monotonic(), kind, number, json.loads(fields["data"]))
                    )
                    fields = {}
                else:
                    fields = {}
        self.ended.set()
