"""Additive hashes: a set's hash is the sum of its leaves, so that one change costs one leaf.

Both sums are modulo 2**64 and stable across nodes, runs and platforms. They find accidents (a reused
seq, a torn file), not forgers: signed roots are another field.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

MASK: Final = 2**64 - 1
_ODD: Final = 0x9E3779B97F4A7C15


def content_leaf(key: str, value: bytes) -> int:
    """The leaf of one visible key and value in the digest of the map."""
    return xxh3_64_intdigest(value, xxh3_64_intdigest(key.encode()))


def log_leaf(key: str, seq: int, value: bytes) -> int:
    """The leaf of one live entry in its log's hash: content and place in the log."""
    return xxh3_64_intdigest(value, xxh3_64_intdigest(key.encode(), (seq * _ODD) & MASK))
