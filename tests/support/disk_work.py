"""Transactions for a store to survive.

Seeded, of every kind of operation, each with the state that it leaves.

Every transaction stores its own number under the meta name `step`, so a state that is read back tells how
far it got, and can be compared with what the store should then hold. Run as a program it writes them one
after the other into a data directory and prints each number once the write has returned, until it is
killed:

    python -m tests.support.disk_work DIRECTORY SEED FIRST_STEP
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crdt.owner_log import OwnerLog
from crdt.persist import DropKeys, DropLog, PutEntries, PutLog, PutMeta, ReplaceLog, StoreOp
from meshd.storage import MemoryDisk, StoredState, open_sqlite

NODE, CLUSTER = "a", "c"
_OWNERS = ("a", "b", "d")


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction; `durable` ones are written with `write_durably`."""

    number: int
    ops: tuple[StoreOp, ...]
    durable: bool


def steps(seed: int) -> Iterator[Step]:
    """The endless work of one seed."""
    rng = random.Random(seed)
    logs: dict[str, OwnerLog] = {}
    number = 0
    while True:
        number += 1
        owner = rng.choice(_OWNERS)
        ops = _ops(rng, logs, owner)
        yield Step(number, (*ops, PutMeta("step", b"%d" % number)), rng.random() < 0.1)


def _ops(rng: random.Random, logs: dict[str, OwnerLog], owner: str) -> list[StoreOp]:
    log = logs.get(owner)
    kind = rng.random()
    if log is None or kind < 0.05:
        log = logs[owner] = OwnerLog(owner, (1 + (log.gen[0] if log else 0), rng.getrandbits(60)))
        _append(rng, log, rng.randrange(8))
        return [ReplaceLog(log.head(), tuple(log.entries.values()))]
    if kind < 0.08:
        del logs[owner]
        return [DropLog(owner)]
    if kind < 0.2:
        dropped = log.collect(rng.randint(log.floor, log.max))
        return [DropKeys(owner, tuple(dropped)), PutLog(log.head())]
    before = log.max
    _append(rng, log, rng.randint(1, 12))
    return [PutEntries(owner, tuple(log.since(before))), PutLog(log.head())]


def _append(rng: random.Random, log: OwnerLog, count: int) -> None:
    for _ in range(count):
        value = None if rng.random() < 0.2 else rng.randbytes(rng.choice((0, 10, 600, 600, 9000)))
        log.append(f"worker:{rng.randrange(40)}", value, rng.getrandbits(60))


def expected(seed: int, number: int) -> StoredState:
    """What a store holds after step `number` (0: nothing)."""
    disk = MemoryDisk()
    for step in steps(seed):
        if step.number > number:
            break
        disk.append(step.ops, forced=True)
    heads, entries, meta = disk.content()
    logs = {
        owner: OwnerLog.restore(head, sorted(entries[owner].values(), key=lambda entry: entry[1]))
        for owner, head in heads.items()
    }
    return StoredState(logs, meta)


def step_of(state: StoredState) -> int:
    """How far the work had come."""
    return int(state.meta.get("step", b"0"))


def differences(state: StoredState, seed: int) -> list[str]:
    """What is wrong with a state that was read back, compared with what it should be at its own step."""
    wanted = expected(seed, step_of(state))
    wrong = list(state.problems)
    if state.logs.keys() != wanted.logs.keys():
        wrong.append(f"logs of {sorted(state.logs)}, not of {sorted(wanted.logs)}")
    for owner, log in wanted.logs.items():
        found = state.logs.get(owner)
        if found is None or found.head() != log.head() or found.entries != log.entries:
            wrong.append(f"the log of {owner} differs")
    return wrong


def _main(directory: str, seed: str, first: str) -> None:
    storage = open_sqlite(Path(directory), "normal", NODE, CLUSTER)
    storage.load()
    for step in steps(int(seed)):
        if step.number >= int(first):
            (storage.write_durably if step.durable else storage.write)(step.ops)
            os.write(1, b"%d\n" % step.number)


if __name__ == "__main__":
    _main(*sys.argv[1:])
