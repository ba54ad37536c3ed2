"""Every limit of the HTTP API, with its reason (SEC-4): nothing that a client sends or holds open is
unbounded.

Units stand last in the names. The limits of keys and values in the store are settings (`store.*`) and live
there.
"""

from __future__ import annotations

from typing import Final

MAX_BODY_BYTES: Final = 512 * 1024
"""A request body. A worker's record may take 256 KiB as CBOR, and JSON takes at most about twice that."""

MAX_JSON_DEPTH: Final = 32
"""Nesting of a request body.

Real specs nest about five levels; deeper ones only serve to exhaust a decoder.
"""

BODY_TIMEOUT_S: Final = 10.0
"""Time for a whole request body to arrive."""

DISCARD_BYTES: Final = 16 * 1024 * 1024
"""How much of a refused body is read and thrown away, so that its sender can read the refusal at all."""

DISCARD_TIMEOUT_S: Final = 2.0
"""How long a refused body is read and thrown away before the connection is closed on its sender."""

MAX_HEADER_BYTES: Final = 16 * 1024
"""A request line with its headers."""

MAX_CONNECTIONS: Final = 1024
"""Open connections of the whole API.

One more is closed at once. Leaves descriptors for the mesh and for checks.
"""

MAX_STREAMS: Final = 256
"""Open event streams; one more is answered 503. Each costs a task and a write per event."""

STREAMS_AT_ONCE: Final = 16
"""Event streams that are written to in the very step in which something happens; others have their turn."""

KEEP_ALIVE_S: Final = 60.0
"""An idle connection is closed after this, and one whose first request does not arrive."""

KEEP_ALIVE_REQUESTS: Final = 1_000_000
"""Requests on one connection. Closing earlier would only cost clients a new connection."""

SEND_SLICE_BYTES: Final = 64 * 1024
"""Answers are written in slices of this size, so that the send limit below measures progress."""

SEND_TIMEOUT_S: Final = 10.0
"""A client that takes no slice for this long is cut off.

It bounds what a client that stops reading may hold.
"""

STOP_GRACE_S: Final = 5.0
"""At stop, running requests may take this long before they are cancelled."""

LISTING_CHUNK: Final = 200
"""Workers encoded at a time, with a checkpoint between: about 0.6 ms on the loop."""

MAX_PAGE: Final = 100_000
"""The largest `limit` of a listing. Listings are written in chunks, so this bounds nonsense, not memory."""

DEFAULT_STORE_PAGE: Final = 1000
"""Entries of `GET /mesh/store` when no `limit` is given; the answer then says how to go on."""

RING_EVENTS: Final = 8192
"""Events kept for streams that are behind or come back with `Last-Event-ID`. Older ones cost a `resync`."""

RING_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the events kept, whichever of both limits is met first."""

STREAM_WRITE_BYTES: Final = 64 * 1024
"""A stream that catches up joins events up to this size into one write."""

STREAM_KEEP_ALIVE_S: Final = 15.0
"""Silence on a stream after which a comment line is sent: proxies stay open, dead clients are noticed."""

STREAM_END_S: Final = 0.5
"""At stop, a stream may take this long to write what is left: a client that does not read costs no more."""

UNIX_PATH_BYTES: Final = 107
"""The longest path of a unix socket that the kernel takes."""
