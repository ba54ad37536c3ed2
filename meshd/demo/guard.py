"""The guard: ends what a program leaves behind when it dies without cleaning up.

Started by `children.Children` as a process of its own. It reads one order a line from
its standard input and acts only when that ends, which happens however its parent dies:

    +PID       end this process group at the end (said by that process itself)
    -PID       the parent has reaped it: forget it
    dir PATH   remove this folder at the end
    kept PATH  the parent has removed it, or wants it kept: forget it

A process id may be used again by the system, so the guard notes the start time of each
process (where the system tells it) and ends only a process that still has it. It imports
little, since every demo and every test run waits for it to start.
"""

import os
import shutil
import signal
import sys
import time

_GONE_WITHIN_S = 5.0
"""How long to wait for ended processes before their folders are removed, in seconds."""


def start_time(pid: int) -> str | None:
    """When a process started, as the kernel writes it, or None if that is not to be had."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[19].decode("ascii") if fields[0] != b"Z" else None


def end(pids: dict[int, str | None]) -> None:
    """End every process group of `pids` (pid -> start time) that is still the one noted."""
    for pid, started in pids.items():
        if start_time(pid) != started:
            continue
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    deadline = time.monotonic() + _GONE_WITHIN_S
    while time.monotonic() < deadline and any(start_time(pid) for pid in pids):
        time.sleep(0.02)


def main() -> None:
    """Take orders until standard input ends, then clean up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    pids: dict[int, str | None] = {}
    folders: set[str] = set()
    for line in sys.stdin:
        order = line.rstrip("\n")
        if order.startswith("+"):
            pids[int(order[1:])] = start_time(int(order[1:]))
        elif order.startswith("-"):
            pids.pop(int(order[1:]), None)
        elif order.startswith("dir "):
            folders.add(order[4:])
        elif order.startswith("kept "):
            folders.discard(order[5:])
    end(pids)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
