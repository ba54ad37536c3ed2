"""What `make demo` shows, scene by scene.

Three daemons meet, four servers are registered on them, every daemon lists all four; a
request goes to a server through what another daemon listed; one daemon is killed, the
others keep its workers, and it comes back with the same ids. Each scene waits for what it
tells (with a time limit) and shows what the daemons really answer. A scene that does not
come true raises `SceneFailed`: the demo is also a test.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from meshd.demo.children import Children
from meshd.demo.client import HttpError, call
from meshd.demo.processes import Daemon, InferenceServer

SCENE_WITHIN_S = 30.0
"""Time limit of one scene: far above what it takes, since the machine may be busy."""

_POLL_S = 0.05
_NODES = ("amber", "birch", "cedar")
_SERVERS = (("one", "llama-tiny"), ("two", "llama-tiny"), ("three", "qwen-tiny"), ("four", "qwen-tiny"))
_SLOTS = 8
"""What each server reports as its `max_running_requests`."""


class SceneFailed(RuntimeError):
    """Something that the demo tells did not come true within the time limit."""


class Story:
    """The running cast; the `pause` of `children` may raise to end the story early."""

    def __init__(self, children: Children, out: TextIO) -> None:
        self.folder = children.folder("meshd-demo-")
        self._children = children
        self._pause = children.pause
        self._out = out
        self.daemons: list[Daemon] = []
        self.servers: list[InferenceServer] = []

    def play(self) -> None:
        """All scenes in order."""
        self._start_servers()
        self._start_daemons()
        self._register()
        self._use()
        self._kill_and_restart()
        self._what_next()

    def _start_servers(self) -> None:
        self._say("Four OpenAI-compatible servers start.")
        for name, model in _SERVERS:
            server = InferenceServer(
                self._children, self.folder, f"server-{name}", model=model, max_running_requests=_SLOTS
            )
            self.servers.append(server)
            server.start()
        for server in self.servers:
            server.wait_listening()
            self._line(f"{server.name:14} {server.model:12} {server.url}")

    def _start_daemons(self) -> None:
        self._say("Three daemons start; the second and third are told the address of the first.")
        started = time.monotonic()
        for name in _NODES:
            join = [self.daemons[0].mesh] if self.daemons else []
            daemon = Daemon(self._children, self.folder, name, join=join)
            self.daemons.append(daemon)
            daemon.start()
            if not join:
                daemon.wait_ready()
        for daemon in self.daemons:
            daemon.wait_ready()
        self._until("every daemon sees three members", self._all_see_all_alive)
        for daemon in self.daemons:
            self._line(f"{daemon.name:14} mesh {daemon.mesh:18} api http://{daemon.api}")
        self._line(f"They met within {time.monotonic() - started:.1f} s of the first start.")

    def _register(self) -> None:
        self._say("The servers are registered: two on amber, one on birch, one on cedar.")
        amber, birch, cedar = self.daemons
        started = time.monotonic()
        for daemon, server in zip((amber, amber, birch, cedar), self.servers, strict=True):
            daemon.register({"url": server.url, "models": [{"id": server.model}]})
        self._until(
            "every daemon lists four ready workers",
            lambda: all(self._lists_all_ready(daemon) for daemon in self.daemons),
        )
        self._line(f"Four ready workers on every daemon after {time.monotonic() - started:.2f} s:")
        for daemon in self.daemons:
            self._show_workers(daemon)

    def _use(self) -> None:
        self._say("A request goes to a worker that cedar knows only from the mesh.")
        worker = next(w for w in self.daemons[2].workers().values() if w["origin"] == "mesh")
        server = next(s for s in self.servers if s.url == worker["url"])
        question = {"model": server.model, "messages": [{"role": "user", "content": "Who are you?"}]}
        answer = call(server.address, "POST", "/v1/chat/completions", question).expect(200).json()
        self._line(f"{worker['url']}: {answer['choices'][0]['message']['content']}")

    def _kill_and_restart(self) -> None:
        amber, *others = self.daemons
        before = {url: w["id"] for url, w in amber.workers().items()}
        self._say("amber is killed (kill -9). birch and cedar keep its two workers.")
        amber.kill()
        for daemon in others:
            self._show_workers(daemon)
            if {url: w["id"] for url, w in daemon.workers().items()} != before:
                raise SceneFailed(f"{daemon.name} lost a worker when amber was killed")
        self._say("amber starts again with the same data directory.")
        started = time.monotonic()
        amber.start()
        amber.wait_ready()
        self._until("amber is back with all workers", lambda: self._lists_all_ready(amber))
        self._until("every daemon sees three members", self._all_see_all_alive)
        if {url: w["id"] for url, w in amber.workers().items()} != before:
            raise SceneFailed("amber came back with other ids")
        self._line(f"Back after {time.monotonic() - started:.1f} s, with the same ids:")
        self._show_workers(amber)

    def _what_next(self) -> None:
        amber, birch, _ = self.daemons
        server = self.servers[0]
        self._say("What to try next, in another terminal:")
        for command in (
            f"meshctl --addr http://{birch.api} worker ls",
            f"meshctl --addr http://{birch.api} members",
            f"meshctl --addr http://{birch.api} watch",
            f"curl -s http://{birch.api}/capacity",
            f"curl -sX PUT {server.url}/control -d '{{\"health_status\": 503}}'   # unwell; 200 heals",
            f"kill -9 {amber.child.pid}   # amber again",
        ):
            self._line(command)

    def _all_see_all_alive(self) -> bool:
        for daemon in self.daemons:
            members = daemon.get("/mesh/members")["members"]
            if {m["name"] for m in members if m["state"] == "alive"} != set(_NODES):
                return False
        return True

    def _lists_all_ready(self, daemon: Daemon) -> bool:
        ready = {url for url, worker in daemon.workers().items() if worker["status"] == "ready"}
        return ready == {server.url for server in self.servers}

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SCENE_WITHIN_S
        while not self._holds(true):
            if time.monotonic() > deadline:
                raise SceneFailed(f"not within {SCENE_WITHIN_S:g} s: {what}")
            self._pause(_POLL_S)

    @staticmethod
    def _holds(true: Callable[[], bool]) -> bool:
        try:
            return true()
        except (OSError, HttpError, http.client.HTTPException):
            return False

    def _show_workers(self, daemon: Daemon) -> None:
        workers = sorted(daemon.workers().values(), key=lambda w: str(w["url"]))
        self._line(f"{daemon.name}:")
        for worker in workers:
            self._line("  " + _row(worker))

    def _say(self, text: str) -> None:
        self._pause(0.0)
        print(f"\n== {text}", file=self._out, flush=True)

    def _line(self, text: str) -> None:
        print(f"   {text}", file=self._out, flush=True)


def _row(worker: dict[str, Any]) -> str:
    return (
        f"{worker['id'][:8]}  {worker['url']:24} {worker['model_id']:12} "
        f"{worker['status']:9} {worker['origin']:6} owner {worker['owner']}"
    )


def logs_of(folder: Path) -> str:
    """The last lines of every log in the demo's folder, for when a scene failed."""
    parts = []
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text("utf-8", "replace").splitlines()[-8:]
        parts.append("\n".join([f"-- {log.name}", *lines]))
    return "\n".join(parts)
