"""The replicated map by itself: merging, deltas, memory and vectors. One process, no network, no disk.

Merging is measured beside a bare dict that keeps the newest entry per key, in turns within one run: that is
what any map in this language could do, so the ratio tells what logs, hashes and the visible map cost, on
whatever machine. Times are processor time. Every contestant gets entries freshly decoded from frames, as a
node does.
"""

from __future__ import annotations

import gc
import random
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from crdt.delta import Transfer, Verdict, lacking
from crdt.lww_map import LwwMap
from crdt.owner_log import OwnerLog
from crdt.prefixes import Claim, Prefix, PrefixTable, Rule
from crdt.types import NONCE_BITS, Entry, Have, LogHead
from meshd.wire.codec import decode, encode
from meshd.wire.messages import Data, Heartbeat, VectorRow
from meshd.workers.model import parse_spec
from meshd.workers.record import WorkerRecord, classify, encode_record, worker_key
from tests.bench.figures import Figure

BATCH = 100
KEYS = 100_000
VALUE_BYTES = 600
ROUNDS = 3
DELTA = 10
SIZES = (1_000, 100_000, 1_000_000)
OWNERS = 100
RECORDS = 10_000
"""Keys of the run whose values are real worker records: reading them is what it measures."""
_OWNER = "node-b"
_GEN = (3, 0x5EED)
_HLC = 1_700_000_000_000 << 16

Batch = tuple[LogHead, int, bytes]
"""The head after a batch, the seq before it, and its entries as a page on the wire."""


def _key(rng: random.Random) -> str:
    return f"worker:{uuid.UUID(int=rng.getrandbits(128))}"


def _own(owner: str, key: str, value: bytes) -> Claim:
    """Every entry its owner's own: the cost of reading records is another figure."""
    return Claim.OWN


def _map(classify: Callable[[str, str, bytes], Claim] = _own) -> LwwMap:
    made = LwwMap("node-a", PrefixTable(Prefix("worker:", Rule.SINGLE_WRITER, classify)))
    made.start_life((1, 1))
    return made


# --- merging ----------------------------------------------------------------------------------------------


def _batches(items: list[tuple[str, bytes]]) -> tuple[LogHead, list[Batch]]:
    """Items written as their owner, in batches: the head before the first, and the batches."""
    log = OwnerLog(_OWNER, _GEN)
    empty = log.head()
    made = []
    for first in range(0, len(items), BATCH):
        start = log.max
        entries = tuple(log.append(key, value, _HLC) for key, value in items[first : first + BATCH])
        made.append((log.head(), start, encode(Data(1, True, entries))))
    return empty, made


def _transfers(batches: list[Batch]) -> list[Transfer]:
    made = []
    for head, start, body in batches:
        page = decode(body)
        assert isinstance(page, Data)
        made.append(Transfer(head, start, False, page.entries))
    return made


def _timed(run: Callable[[], None]) -> float:
    gc.collect()
    began = time.process_time()
    run()
    return time.process_time() - began


def _into_dict(transfers: list[Transfer]) -> None:
    table: dict[str, Entry] = {}
    vector: dict[str, int] = {}
    for transfer in transfers:
        owner = transfer.head.owner
        for entry in transfer.entries:
            old = table.get(entry[0])
            if old is None or old[1] < entry[1]:
                table[entry[0]] = entry
            if entry[1] > vector.get(owner, 0):
                vector[owner] = entry[1]


def _into_log(transfers: list[Transfer]) -> None:
    log = OwnerLog(_OWNER, _GEN)
    for transfer in transfers:
        log.extend(transfer.entries, transfer.head.max)
    assert log.hash == transfers[-1].head.hash


def _into_map(store: LwwMap, transfers: list[Transfer]) -> None:
    for transfer in transfers:
        if store.apply(transfer).verdict is not Verdict.APPLIED:
            raise RuntimeError("a transfer was not applied")


def _ready(store: LwwMap, empty: LogHead) -> LwwMap:
    store.apply(Transfer(empty, 0, True, ()))
    return store


def _merging() -> list[Figure]:
    rng = random.Random(1)
    keys = [_key(rng) for _ in range(KEYS)]
    items = [(key, rng.randbytes(VALUE_BYTES)) for key in keys + rng.sample(keys, KEYS)]
    empty, batches = _batches(items)
    del items
    spent: dict[str, list[float]] = {"dict": [], "log": [], "map": []}
    for _ in range(ROUNDS):
        spent["dict"].append(_timed(partial(_into_dict, _transfers(batches))))
        spent["log"].append(_timed(partial(_into_log, _transfers(batches))))
        spent["map"].append(_timed(partial(_into_map, _ready(_map(), empty), _transfers(batches))))
    rate = {name: 2 * KEYS / min(times) for name, times in spent.items()}
    note = f"best of {ROUNDS}; {KEYS:,} new keys and as many overwritten, {VALUE_BYTES} B, {BATCH} at a time"
    return [
        Figure("merge into a bare dict", rate["dict"], "entries/s", note=note),
        Figure("merge into a log, hashed", rate["log"], "entries/s", 500_000, at_least=True),
        Figure("merge into a log, share of the dict", rate["log"] / rate["dict"] * 100, "%"),
        Figure("merge into the map", rate["map"], "entries/s", 500_000, "log and visible map", at_least=True),
        Figure("merge into the map, share of the dict", rate["map"] / rate["dict"] * 100, "%"),
        _merging_records(),
    ]


def _merging_records() -> Figure:
    items = []
    for number in range(RECORDS):
        url = f"http://10.1.{number >> 8}.{number & 255}:8000"
        models = [{"id": f"model-{number % 20}"}]
        worker = parse_spec({"url": url, "models": models, "labels": {"note": "x" * 375}})
        value = encode_record(WorkerRecord(worker, "ready", _OWNER, 1))
        items.append((worker_key(_OWNER, url), value))
    empty, batches = _batches(items)
    rounds = [
        _timed(partial(_into_map, _ready(_map(classify), empty), _transfers(batches))) for _ in range(ROUNDS)
    ]
    note = f"each of {len(items[0][1])} B read and its key checked"
    return Figure("merge worker records into the map", RECORDS / min(rounds), "entries/s", note=note)


# --- deltas -----------------------------------------------------------------------------------------------


def _delta_s(keys: int) -> float:
    """Median time to find what a replica lacks and to apply it, where both hold `keys` keys."""
    rng = random.Random(keys)
    names = [_key(rng) for _ in range(keys)]
    value = rng.randbytes(64)
    source = OwnerLog(_OWNER, _GEN)
    for name in names:
        source.append(name, value, _HLC)
    replica = _map()
    replica.apply(Transfer(source.head(), 0, True, tuple(source.entries.values())))
    spent = []
    gc.collect()
    for _ in range(300):
        for name in rng.sample(names, DELTA):
            source.append(name, value, _HLC)
        spent.append(_one_delta(source, replica))
    return median(spent)


def _one_delta(source: OwnerLog, replica: LwwMap) -> float:
    have = replica.have(_OWNER)
    began = time.perf_counter()
    transfer = lacking(source, have)
    assert transfer is not None
    change = replica.apply(transfer)
    took_s = time.perf_counter() - began
    assert (change.verdict, len(transfer.entries)) == (Verdict.APPLIED, DELTA)
    return took_s


def _deltas() -> list[Figure]:
    took_s = {keys: _delta_s(keys) for keys in SIZES}
    figures = [Figure(f"delta of {DELTA} out of {keys:,}", took_s[keys] * 1e6, "us") for keys in SIZES]
    ratio = took_s[SIZES[-1]] / took_s[SIZES[0]]
    note = "found, sent and applied; medians of 300"
    return [*figures, Figure(f"delta, {SIZES[-1]:,} keys to {SIZES[0]:,}", ratio, "times", 3.0, note)]


# --- memory and vectors -----------------------------------------------------------------------------------


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def _fill() -> None:
    """In a process of its own: take in KEYS entries page by page, and print the bytes it grew by."""
    rng = random.Random(1)
    store = _map()
    source = OwnerLog(_OWNER, _GEN)
    store.apply(Transfer(source.head(), 0, True, ()))
    before = _rss_bytes()
    for first in range(1, KEYS + 1, BATCH):
        entries: list[Entry] = [
            (_key(rng), seq, None, _HLC + seq, rng.randbytes(VALUE_BYTES), None)
            for seq in range(first, first + BATCH)
        ]
        source.hash = source.weigh(entries).hash
        source.max += BATCH
        page = decode(encode(Data(1, True, tuple(entries))))
        assert isinstance(page, Data)
        _into_map(store, [Transfer(source.head(), first - 1, False, page.entries)])
    assert len(store.view.winners) == KEYS
    print(_rss_bytes() - before)


def _memory() -> list[Figure]:
    child = [sys.executable, "-c", "from tests.bench.replicated_map import _fill; _fill()"]
    grown = int(subprocess.run(child, check=True, capture_output=True, timeout=120).stdout)
    note = f"{KEYS:,} keys, {VALUE_BYTES} B values, taken in from a peer"
    return [Figure("RSS per key", grown / KEYS, "B", 1200, note)]


def _vector() -> list[Figure]:
    rng = random.Random(1)
    rows = []
    for number in range(OWNERS):
        gen = (rng.randrange(1, 50), rng.getrandbits(NONCE_BITS))
        have = Have(gen, rng.randrange(1_000, 100_000), rng.randrange(1_000), rng.getrandbits(64), gen, 0)
        rows.append(VectorRow(f"gateway-{number:03}", have))
    beat = Heartbeat(_HLC, 1, 1, tuple(rows), (), None, 1)
    size = len(encode(beat)) - len(encode(replace(beat, rows=())))
    note = "on the wire, where every row has changed"
    return [Figure(f"vector of {OWNERS} owners", size, "B", note=note)]


def measure() -> list[Figure]:
    """Measure all of it: about a minute, and 1.5 GB at most."""
    return [*_merging(), *_deltas(), *_memory(), *_vector()]
