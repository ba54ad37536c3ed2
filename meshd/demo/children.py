"""Child processes and folders that never outlive the program that made them.

`Children` owns every process it starts and every folder it makes. Rules:

- leaving the `with` block ends and reaps every child and removes every folder, whatever
  the reason for leaving;
- if this program is killed outright, the guard (see `guard`) does the same;
- each child leads a process group of its own, so that Ctrl-C in a terminal reaches this
  program alone and it can stop its children in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from meshd.demo import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class ChildFailed(RuntimeError):
    """A child ended, or did not do in time what it was started for; the text holds the end of its log."""


class Child:
    """One process; its standard output and error go to the end of the file `log`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, owner: Children) -> None:
        self.name = name
        self.log = log
        self.process = process
        self._owner = owner

    @property
    def pid(self) -> int:
        """The process id; it stays the child's own until it was reaped by `wait`."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """True until the process has ended (a stopped process is still running)."""
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; a no-op if it has ended."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code (-N: ended by signal N).

        Raises ChildFailed if it is still running after `timeout_s` seconds.
        """
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{self.name} still runs after {timeout_s:g} s\n{self.log_tail()}") from None
        self._owner.forget(self)
        return code

    def terminate(self, timeout_s: float) -> int:
        """Ask it to stop (SIGTERM; a stopped process is continued first) and wait; see `wait`."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        return self.wait(timeout_s)

    def kill(self) -> int:
        """End its process group at once (SIGKILL), reap it, and return the exit code."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        code = self.process.wait()
        self._owner.forget(self)
        return code

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its log, for an error message."""
        try:
            text = self.log.read_text("utf-8", "replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])


class Children:
    """Everything that one program started; use it as a context manager.

    `pause(seconds)` is called wherever one of its processes is waited for to become ready;
    what it raises ends the wait (the demo looks for Ctrl-C there).
    """

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self.pause = pause
        self._children: list[Child] = []
        self._folders: list[Path] = []
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def folder(self, prefix: str = "meshd-") -> Path:
        """Make a temporary folder that is removed with the rest."""
        self._pipe()
        path = Path(tempfile.mkdtemp(prefix=prefix))
        self._folders.append(path)
        self._order(f"dir {path}")
        return path

    def spawn(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Start a program; `env` is added to this program's environment.

        Raises OSError if it cannot be started, ValueError after `close`.
        """
        pipe = self._pipe().fileno()

        def tell_guard() -> None:
            # The new process does it before it becomes the program, so that there is no moment at which we
            # could be killed and it be left behind.
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the guard may be gone
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe, b"+%d\n" % os.getpid())
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)

        with log.open("ab") as out:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=tell_guard,
            )
        child = Child(name, process, log, self)
        self._children.append(child)
        return child

    def forget(self, child: Child) -> None:
        """Called by a child that has been reaped: its process id is no longer ours."""
        if child in self._children:
            self._children.remove(child)
            self._order(f"-{child.pid}")

    def stop(self, children: Iterable[Child], grace_s: float) -> None:
        """Ask these children to stop, all at once; after `grace_s` seconds those left are killed."""
        left = [child for child in children if child in self._children]
        for child in left:
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)
        deadline = time.monotonic() + grace_s
        for child in left:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except ChildFailed:
                child.kill()

    def close(self, grace_s: float = 5.0) -> None:
        """Stop every child, remove every folder, and let the guard go; idempotent."""
        try:
            self.stop(list(self._children), grace_s)
        finally:
            for child in list(self._children):
                child.kill()
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)
            self._folders.clear()
            if self._guard.stdin is not None and not self._guard.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    self._guard.stdin.close()
            self._guard.wait()

    def _pipe(self) -> IO[bytes]:
        pipe = self._guard.stdin
        if pipe is None or pipe.closed:
            raise ValueError("these children were closed: nothing more can be started")
        return pipe

    def _order(self, order: str) -> None:
        # A guard that is gone must not keep us from stopping the children ourselves.
        with contextlib.suppress(BrokenPipeError):
            pipe = self._pipe()
            pipe.write(order.encode() + b"\n")
            pipe.flush()
