"""Every bound of the runtime, with its reason. What goes over the wire is bounded in `meshd.wire.limits`."""

from __future__ import annotations

from typing import Final

DIAL_TIMEOUT_S: Final = 3.0
"""A connect that takes longer is given up: a live host on any network answers sooner, a black hole never."""

DIALS_AT_ONCE: Final = 32
"""Connects under way together. More wait their turn, so that 1,000 dead addresses cost no 1,000 sockets."""

FIRST_FRAME_S: Final = 5.0
"""Time from accepting to the first whole frame: port scanners and half-open connections get no more."""

FIRST_FRAME_BYTES: Final = 64 * 1024
"""A stranger's first frame. A hello takes a few hundred bytes; nobody unknown makes us buffer more."""

QUIET_S: Final = 180.0
"""A connection without one whole frame for so long is closed.

Three of the slowest heartbeats there can be.
"""

SEND_STALL_S: Final = 20.0
"""A batch that is not sent after this long ends the connection; a peer stopped for a while needs less."""

CLOSE_DRAIN_S: Final = 1.0
"""Time that the last frames (a refusal, a farewell) get before the connection is cut."""

LEAVE_S: Final = 1.0
"""Time to tell every peer that we leave; one that does not read must not hold up the stop."""

CONNECTIONS_MAX: Final = 2048
"""Connections accepted in all: twice the largest mesh, below the usual 4,096 open files."""

CONNECTIONS_PER_ADDRESS: Final = 128
"""Connections from one remote IP address: a host rarely runs more nodes, and must not take all places."""

CONNECTIONS_PER_LOOPBACK: Final = 1024
"""The same for loopback addresses, where test clusters live."""

READ_BYTES: Final = 64 * 1024
"""Bytes read at once: decoded and handled between two checkpoints, about 5 ms at the worst."""

SEND_BATCH_BYTES: Final = 128 * 1024
"""Frames are joined into one send up to this; what comes after is computed when the send is done."""

PEER_STOPPED_READING_MS: Final = 30_000
"""TCP_USER_TIMEOUT: unacknowledged bytes older than this mean that the peer's machine is gone."""

LISTEN_BACKLOG: Final = 256
"""Connections that may wait to be accepted: a cluster that reconnects all at once."""

NOTICE_REPEAT_S: Final = 60.0
"""The same complaint about the same remote address is logged this often at most; the rest is counted."""

NOTICE_SOURCES: Final = 1024
"""Remote addresses remembered for that; the one heard of longest ago is forgotten first."""

DISK_RETRY_MIN_S: Final = 0.2
DISK_RETRY_MAX_S: Final = 10.0
"""Pause after a failed write to the disk, doubling from the first to the second."""

DISK_STOP_S: Final = 5.0
"""At stop, the last write may take this long."""

LINGER_S: Final = 0.002
"""Time that writes nobody waits for may collect: the disk thread must not take the interpreter from the one
that is just telling peers and subscribers of the change."""

DEADLINE_READ_S: Final = 0.02
"""How late a deadline that came nearer in a burst of inputs, or without anything to do, may be noticed:
nothing that is pushed waits for one."""
