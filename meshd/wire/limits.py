"""Every bound of the wire protocol, with its reason. A peer that breaks one loses its connection."""

from __future__ import annotations

from typing import Final

MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
"""A frame's body. One page, or one entry with the greatest configurable value, fits with room to spare."""

MAX_VALUE_BYTES: Final = 4 * 1024 * 1024
"""A value on the wire; `store.max_value_bytes` may be set up to this."""

PAGE_BYTES: Final = 128 * 1024
"""A page of a transfer is closed once it holds this much: small enough that other news slips in between."""

PAGE_ENTRIES: Final = 512
"""Entries in a page: about 2 ms to encode, so the event loop is never held for long."""

MAX_PAGE_ENTRIES: Final = 8192
"""Entries accepted in a page, to leave later versions room."""

MAX_KEY_BYTES: Final = 4096
"""A key on the wire; local writes are bounded more tightly by `store.max_key_bytes`."""

MAX_NAME_CHARS: Final = 255
"""Names of nodes, clusters and zones, in characters."""

MAX_TEXT_CHARS: Final = 1024
"""Other text: addresses, versions, reasons."""

MAX_VECTOR_ROWS: Final = 16_384
MAX_MEMBER_ROWS: Final = 16_384
MAX_PEER_NAMES: Final = 4096
MAX_LINEAGE_ROWS: Final = 4096
"""Rows accepted in one frame: several times what the largest mesh needs."""

HEARTBEAT_ROWS: Final = 1024
HEARTBEAT_MEMBERS: Final = 256
"""Rows sent in one heartbeat; what is left follows in the next. With names and addresses as long as they
may be these take 4 MiB, so a heartbeat is never over MAX_FRAME_BYTES."""

MAX_EXTRA_BYTES: Final = 1024
"""What newer versions may append to a member row, packed: every node keeps it and passes it on."""

MAX_OWNERS: Final = 16_384
"""Owners that a node takes note of. Beyond them only those that it is connected to count."""

MAX_FEATURES: Final = 64

MAX_INT: Final = 2**64 - 1
MAX_SIGNED: Final = 2**63 - 1
"""Integers are unsigned 64-bit; those that reach the database stay below 2**63."""

MAX_PULLS_QUEUED: Final = 16_384
"""Requests of a peer that wait to be answered on one connection; each owner stands there once."""

MAX_STAGED_TRANSFERS: Final = 64
"""Incomplete incoming transfers per connection; a sender has at most a few under way."""

OUTGOING_TRANSFERS: Final = 4
"""Transfers sent side by side on one connection, so that a long one does not hold up the short ones."""

MAX_WAITING: Final = 256
"""Messages kept for a peer whose name is contested, for the second or so until that is settled."""
