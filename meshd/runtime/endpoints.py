"""`<data-dir>/endpoints.json`.

Where a running daemon can be reached, for programs that let it pick its ports.

The file is there while the daemon runs, whole or not at all.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from meshd.storage.data_dir import write_atomically

FILE_NAME = "endpoints.json"


def write_endpoints(data_dir: Path, *, node: str, mesh: str, api: str | None, socket: str | None) -> Path:
    """Write node name, `mesh` and `api` as host:port, the unix socket's path and our process id.

    Returns the file.
    """
    path = data_dir / FILE_NAME
    content = {"node": node, "mesh": mesh, "api": api, "socket": socket, "pid": os.getpid()}
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")
    return path


def remove_endpoints(data_dir: Path) -> None:
    """Take the file away when the daemon stops."""
    (data_dir / FILE_NAME).unlink(missing_ok=True)
