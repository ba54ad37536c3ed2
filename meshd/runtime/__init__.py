"""Where trio enters: sockets, clocks, threads and logs around the sans-I/O node.

`mesh` is the handle that the rest of the daemon holds; behind it `driver` performs what the node wants,
`connection` moves frames, `transport` (TCP) and `memory` (tests) carry them, `persister` writes to disk.
`limits` bounds it all.
"""

from meshd.runtime.driver import Driver, SansIoNode
from meshd.runtime.mesh import Mesh
from meshd.runtime.persister import DirectPersister, Persister, ThreadPersister
from meshd.runtime.transport import Link, TcpTransport, Transport

__all__ = [
    "DirectPersister",
    "Driver",
    "Link",
    "Mesh",
    "Persister",
    "SansIoNode",
    "TcpTransport",
    "ThreadPersister",
    "Transport",
]
