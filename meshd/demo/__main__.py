"""`python -m meshd.demo [--once]`: play the story, then stay until Ctrl-C.

Signals never interrupt a step half-way: they are noted and looked at between steps, so that
whatever was started is known to whoever stops it. Exit codes: 0 shown (Ctrl-C is the
ordinary way to end it), 1 a scene failed, 130 or 143 interrupted before the end.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from types import FrameType

from meshd.demo.children import ChildFailed, Children
from meshd.demo.client import HttpError
from meshd.demo.story import SceneFailed, Story, logs_of

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The user asked to stop; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Notes the ending signals; `pause` is where they take effect."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._number = 0
        for number in _ENDING:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number = number
            os.write(self._write, b"!")

    def pause(self, seconds: float | None) -> None:
        """Wait (None: for ever); raises Interrupted if a signal has come or comes meanwhile."""
        if select.select([self._read], [], [], seconds)[0]:
            raise Interrupted(self._number)


def _play(signals: Signals, once: bool) -> int:
    with Children(signals.pause) as children:
        story = Story(children, sys.stdout)
        try:
            story.play()
        except (SceneFailed, ChildFailed, HttpError, OSError) as error:
            print(f"\nThe demo failed: {error}\n{logs_of(story.folder)}", file=sys.stderr, flush=True)
            return 1
        except Interrupted as interrupt:
            print("\nInterrupted: stopping everything.", flush=True)
            return 128 + interrupt.number
        if once:
            return 0
        print("\nEverything runs until Ctrl-C.", flush=True)
        try:
            signals.pause(None)
        except Interrupted:
            print("\nStopping everything.", flush=True)
        return 0


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m meshd.demo", description="A mesh on loopback.")
    parser.add_argument("--once", action="store_true", help="end when everything was shown")
    args = parser.parse_args(argv)
    return _play(Signals(), args.once)


if __name__ == "__main__":
    sys.exit(main())
