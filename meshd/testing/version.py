"""Frames as a later version of meshd would write them: everything that this version promised to tolerate.

A later version appends fields to messages and to member rows, names features that nobody knows, and sends
messages of new types. Nothing of that may disturb an older node, and member rows must be passed on whole.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]  # ships no annotations

_HELLO: Final = 1
_HEARTBEAT: Final = 3
_NEW_FIELD: Final = {"later": [1, 2]}
FEATURE: Final = "sim-later"


def newer_frame(frame: bytes) -> bytes:
    """The same message as a later version would send it."""
    parts: list[Any] = msgpack.unpackb(frame, use_list=True, raw=False, strict_map_key=False)
    if parts[0] == _HELLO:
        parts[2] += 1  # it could speak the next protocol, too
        parts[9] = [*parts[9], FEATURE]
    elif parts[0] == _HEARTBEAT:
        parts[5] = [[*row, "later"] if len(row) == 7 else row for row in parts[5]]
    parts.append(_NEW_FIELD)
    packed: bytes = msgpack.packb(parts, use_bin_type=True)
    return packed


def unknown_frame() -> bytes:
    """A message of a type that this version does not know."""
    packed: bytes = msgpack.packb([4242, _NEW_FIELD], use_bin_type=True)
    return packed
