"""The store on disk: saving and loading a whole node's records."""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path

from crdt.owner_log import OwnerLog
from crdt.persist import PutEntries, PutLog, StoreOp
from meshd.storage import open_sqlite
from tests.bench.figures import Figure

RECORDS = 100_000
VALUE_BYTES = 600
LOAD_AIM_S = 2.0


def measure(folder: Path) -> list[Figure]:
    """Save RECORDS records in one transaction, and load them as a start does, with every check."""
    rng = random.Random(1)
    log = OwnerLog("a", (1, 7))
    for _ in range(RECORDS):
        log.append(f"worker:{rng.randbytes(16).hex()}", rng.randbytes(VALUE_BYTES), 1)
    ops: list[StoreOp] = [PutLog(log.head()), PutEntries("a", tuple(log.entries.values()))]
    storage = open_sqlite(folder, "normal", "a", "c")
    storage.load()
    began, cpu = time.monotonic(), time.process_time()
    storage.write(ops)
    saved = (time.monotonic() - began, time.process_time() - cpu)
    storage.close()
    del log, ops
    gc.collect()
    storage = open_sqlite(folder, "normal", "a", "c")
    began, cpu = time.monotonic(), time.process_time()
    state = storage.load()
    loaded = (time.monotonic() - began, time.process_time() - cpu)
    storage.close()
    if len(state.logs["a"].entries) != RECORDS:
        raise RuntimeError("not all records came back")
    what = f"{RECORDS:,} records of {VALUE_BYTES} B"
    return [
        Figure(f"save {what}", saved[0], "s", note=f"{saved[1]:.2f} s of it on the processor"),
        Figure(f"load {what}", loaded[0], "s", LOAD_AIM_S, f"{loaded[1]:.2f} s of it on the processor"),
    ]
