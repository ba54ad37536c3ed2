"""How nodes are found: static seeds, DNS, zeroconf; all may run at once.

Each way is a coroutine `run(..., add_addresses, task_status=...)` that looks for ever and hands over
every `host:port` it finds. None of them decides anything: the node dials, and the handshake tells who is
there.
"""

from meshd.discovery.found import AddAddresses

__all__ = ["AddAddresses"]
