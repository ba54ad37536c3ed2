"""Clusters of real nodes in one process, on virtual time, for tests: of meshd, and of gateways that use it.

Start with README.md beside this file.
"""

from meshd.testing.checks import Invariant, Violation
from meshd.testing.cluster import SimCluster, SimTimeout
from meshd.testing.health import HealthScript
from meshd.testing.latency import BAD, LAN, WAN, Latency
from meshd.testing.place import NotRunning, SimNode
from meshd.testing.trace import Trace, timeline

__all__ = [
    "BAD",
    "LAN",
    "WAN",
    "HealthScript",
    "Invariant",
    "Latency",
    "NotRunning",
    "SimCluster",
    "SimNode",
    "SimTimeout",
    "Trace",
    "Violation",
    "timeline",
]
