"""`python -m tests.bench [--json FILE] [--only NAME]...`: the figures that have aims, as a table and as JSON.

Three real daemons on loopback: `latency`, `catch-up`, `idle`. In this process: `map` (merging, deltas,
memory), `disk` (save and load), `turns` (what holds the event loop), `simulation` (5 and 50 nodes).

Not a test: nothing here is run by pytest, and a figure over its aim is shown, not failed.
Run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from meshd.demo.children import Children
from tests.bench import catch_up, disk, idle, latency, loading, replicated_map, simulation, turns
from tests.bench.figures import Figure, table, write_json
from tests.support.processes import Mesh, everywhere

_DAEMONS = ("latency", "catch-up", "idle")
_PARTS = (*_DAEMONS, "map", "disk", "turns", "simulation")
# Only the mesh is measured: nobody checks the workers, and addresses that do not exist do not matter.
_SETTINGS = {"health.disable_health_check": "true", "log.level": "warning"}
_SIZES = ((1_000, 5, None), (10_000, 3, 2.0))
"""Workers, how often an empty node joins, and the aim in seconds."""


def _run_daemons(parts: list[str], children: Children, say: list[Figure]) -> None:
    folder = children.folder("meshd-bench-")
    if "latency" in parts:
        place = folder / "latency"
        place.mkdir()
        mesh = Mesh(children, place, settings=_SETTINGS).start()
        _tell(say, latency.measure(mesh))
        mesh.stop()
    if "catch-up" in parts or "idle" in parts:
        place = folder / "many"
        place.mkdir()
        mesh = Mesh(children, place, settings=_SETTINGS).start()
        held = 0
        for count, repeats, aim_s in _SIZES:
            loading.register(mesh["a"], held, count - held)
            held = count
            everywhere(mesh, partial(loading.holds, count), f"holds {count} workers")
            if "catch-up" in parts:
                _tell(say, catch_up.measure(mesh, count, repeats, aim_s))
        if "idle" in parts:
            _tell(say, idle.measure(mesh, held))
        mesh.stop()


def _run_here(parts: list[str], say: list[Figure]) -> None:
    if "map" in parts:
        _tell(say, replicated_map.measure())
    if "disk" in parts:
        with tempfile.TemporaryDirectory(prefix="meshd-bench-") as folder:
            _tell(say, disk.measure(Path(folder) / "data"))
    if "turns" in parts:
        _tell(say, turns.measure())
    if "simulation" in parts:
        for figure in simulation.figures():
            _tell(say, [figure])


def _tell(say: list[Figure], figures: list[Figure]) -> None:
    say.extend(figures)
    print("\n" + table(figures), flush=True)


def main() -> int:
    """Measure and show; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    parser.add_argument("--only", action="append", choices=_PARTS, help="measure this part; repeatable")
    args = parser.parse_args()
    figures: list[Figure] = []
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    parts = args.only or list(_PARTS)
    if any(part in _DAEMONS for part in parts):
        with Children() as children:
            _run_daemons(parts, children, figures)
    _run_here(parts, figures)
    print(f"\nload average after: {os.getloadavg()[0]:.2f}")
    if args.json is not None:
        write_json(args.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
