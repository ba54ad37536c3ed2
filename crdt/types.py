"""The shapes that every layer shares: generations, dots, entries, heads and vectors.

Entries are plain tuples on purpose: a map of a million of them is walked by the garbage collector
in milliseconds, where slotted objects take seconds. Use the index constants to read them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

Gen = tuple[int, int]
"""(counter, boot nonce): one generation of an owner's log. Compared as a tuple; grows with each life."""

Dot = tuple[int, int, int]
"""(gen counter, gen nonce, seq) of the user's write; survives republishing under a later gen."""

Entry = tuple[str, int, Dot | None, int, bytes | None, bytes | None]
"""(key, seq, dot, hlc, value, signature). No dot: written under this very (gen, seq). No value: tombstone."""

KEY: Final = 0
SEQ: Final = 1
DOT: Final = 2
HLC: Final = 3
VALUE: Final = 4
SIGNATURE: Final = 5

COUNTER_LIMIT: Final = 2**53
"""Gen counters stay below this, so that every JSON reader shows them exactly."""

NONCE_BITS: Final = 63
_NONCE_RANDOM_BITS: Final = 39
_NONCE_BOOT_LIMIT: Final[int] = 2 ** (NONCE_BITS - _NONCE_RANDOM_BITS) - 2  # no nonce is that of a fence

FENCE_NONCE = 2**NONCE_BITS - 1
"""Stands for 'any nonce': the gen (counter, FENCE_NONCE) is greater than every life's with that counter."""


class Have(NamedTuple):
    """What a replica holds of one owner's log: one row of a version vector.

    `known` is the greatest gen heard of for this owner (anybody's fences included), which the owner must
    exceed. `fence` is the counter up to which this replica itself refuses gens, 0 where it refuses none.
    """

    gen: Gen
    max: int
    floor: int
    hash: int
    known: Gen
    fence: int


class LogHead(NamedTuple):
    """All of an owner's log but its entries. `lineage` rows are (counter, nonce, seq taken on)."""

    owner: str
    gen: Gen
    base: int
    max: int
    floor: int
    hash: int
    lineage: tuple[tuple[int, int, int], ...]
    signature: bytes | None = None


NO_GEN: Gen = (0, 0)
"""Smaller than every real gen; stands for 'holds nothing'."""

NOTHING = Have(NO_GEN, 0, 0, 0, NO_GEN, 0)


def boot_nonce(boot_counter: int, random_bits: int) -> int:
    """Make the nonce of a life: the counter it booted with in the high bits, randomness below.

    Two lives that share a data directory are told apart by the random bits, and the high bits order
    them by the counter that each booted with, so that both agree on which came later.
    """
    low: int = random_bits & (2**_NONCE_RANDOM_BITS - 1)
    return (min(boot_counter, _NONCE_BOOT_LIMIT) << _NONCE_RANDOM_BITS) | low


def format_gen(gen: Gen) -> str:
    """A gen as people read it: `7.00000038a1b2c3d4`, or `7.*` for a fence."""
    if gen[1] == FENCE_NONCE:
        return f"{gen[0]}.*"
    return f"{gen[0]}.{gen[1]:016x}"


def dot_of(entry: Entry, gen: Gen) -> Dot:
    """The (gen, seq) of the user's write behind an entry that stands in a log of `gen`."""
    dot = entry[DOT]
    return (gen[0], gen[1], entry[SEQ]) if dot is None else dot
