"""How much a task does before others have their turn: counted, not timed, so that load changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class _Steps(trio.abc.Instrument):
    def __init__(self, count: Callable[[], int], steps: list[int]) -> None:
        self._count = count
        self._steps = steps
        self._before = count()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.end()

    def end(self) -> None:
        """Note the step that ends here."""
        if done := self._count() - self._before:
            self._steps.append(done)


@contextmanager
def work_per_step(count: Callable[[], int]) -> Iterator[list[int]]:
    """Within the block, note by how much `count()` grows in each step of a task in which it does.

    A step is what a task does between two points at which others may run; the block ends one too. Call it
    from a trio task.
    """
    steps: list[int] = []
    instrument = _Steps(count, steps)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield steps
    finally:
        trio.lowlevel.remove_instrument(instrument)
        instrument.end()
