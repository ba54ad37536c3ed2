"""Clusters of real nodes in one process, on virtual time, for tests: of meshd, and of gateways that use it.

Start with README.md beside this file. The names below are imported when they are first used, since the pytest
plugin of this package is loaded by every pytest that runs where meshd is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshd.testing.checks import Invariant, Violation
    from meshd.testing.cluster import INVARIANTS, SimCluster, SimTimeout
    from meshd.testing.health import HealthScript
    from meshd.testing.latency import BAD, LAN, WAN, Latency
    from meshd.testing.place import NotRunning, SimNode
    from meshd.testing.trace import Trace, timeline

_HOMES = {
    "BAD": "latency",
    "INVARIANTS": "cluster",
    "LAN": "latency",
    "WAN": "latency",
    "HealthScript": "health",
    "Invariant": "checks",
    "Latency": "latency",
    "NotRunning": "place",
    "SimCluster": "cluster",
    "SimNode": "place",
    "SimTimeout": "cluster",
    "Trace": "trace",
    "Violation": "checks",
    "timeline": "trace",
}

__all__ = [
    "BAD",
    "INVARIANTS",
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


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return found
