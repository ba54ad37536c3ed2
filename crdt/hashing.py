"""Additive hashes: a set's hash is the sum of its leaves, so that one change costs one leaf.

Both sums are modulo 2**64 and stable across nodes, runs and platforms. They find accidents (a reused
seq, a torn file), not forgers: signed roots are another field.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

MASK: Final = 2**64 - 1


def content_leaf(key: str, value: bytes) -> int:
    """The leaf of one visible key and value in the digest of the map."""
    return xxh3_64_intdigest(value, xxh3_64_intdigest(key.encode()))


def log_leaf(content: int, seq: int) -> int:
    """The leaf of one live entry in its log's hash, from that of its content and its place; not yet reduced.

    Odd factors keep leaves apart that differ: two contents at one seq, or one content at two.
    """
    return content * (2 * seq + 1)
