"""The small inference servers of the tests: the demo's program, several at a time.

The program itself is `meshd.demo.openai_server`; product code may not import tests, so the
tests import the product's.
"""

from __future__ import annotations

from pathlib import Path

from meshd.demo.children import Children
from meshd.demo.processes import InferenceServer


def start_servers(
    children: Children, folder: Path, count: int, prefix: str = "server"
) -> list[InferenceServer]:
    """Start `count` servers at once and wait until all of them listen."""
    servers = [InferenceServer(children, folder, f"{prefix}{number}") for number in range(count)]
    for server in servers:
        server.start()
    for server in servers:
        server.wait_listening()
    return servers
