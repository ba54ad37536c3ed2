"""What a daemon costs while nothing happens: processor time and memory, from /proc."""

from __future__ import annotations

import os
import time
from pathlib import Path

from meshd.demo.processes import Daemon
from tests.bench.figures import Figure
from tests.support.processes import Mesh

SETTLE_S = 5.0
WINDOW_S = 30.0
"""Exactly one reconcile pass (every 30 s) falls into it, so that its cost is counted."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(daemon: Daemon) -> float:
    """Processor seconds, user and system, that the daemon has used so far."""
    fields = Path(f"/proc/{daemon.child.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_mib(daemon: Daemon) -> float:
    """Resident memory in MiB."""
    for line in Path(f"/proc/{daemon.child.pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no VmRSS")


def measure(mesh: Mesh, workers: int) -> list[Figure]:
    """Watch all daemons for WINDOW_S without asking them anything."""
    time.sleep(SETTLE_S)
    started = time.monotonic()
    before = {daemon.name: cpu_s(daemon) for daemon in mesh}
    time.sleep(WINDOW_S)
    window = time.monotonic() - started
    figures = []
    for daemon in mesh:
        share = (cpu_s(daemon) - before[daemon.name]) / window * 100
        name = f"{daemon.name} idle with {workers:,} workers"
        figures.append(Figure(f"{name}, CPU", share, "% of a core", 1.0, f"over {window:.0f} s"))
        figures.append(Figure(f"{name}, RSS", rss_mib(daemon), "MiB", 150 * 1e6 / 2**20))
    return figures
