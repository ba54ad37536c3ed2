"""Makes a node and a worker plane out of a configuration; time, randomness and the disk's content are given.

The daemon and the simulator both build by this, so that what is simulated is what runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import meshd
from crdt.lww_map import Limits
from meshd.config import Config
from meshd.live_settings import plane_settings
from meshd.prefixes import prefix_table
from meshd.protocol.node import MeshNode
from meshd.protocol.settings import NodeSettings
from meshd.storage.interface import StoredState
from meshd.workers.plane import WorkerPlane
from meshd.workers.publishing import Sealer

if TYPE_CHECKING:
    import random


def build_node(
    config: Config, state: StoredState, rng: random.Random, now: float, wall_clock: Callable[[], int]
) -> MeshNode:
    """The mesh node that the configuration and the disk make; `wall_clock` gives ms since 1970."""
    settings = NodeSettings(
        node=config.node.name,
        cluster=config.node.cluster,
        zone=config.node.zone or "",
        version=meshd.__version__,
        heartbeat_s=config.mesh.heartbeat_s,
        probe_timeout_s=config.mesh.probe_timeout_s,
        suspicion_mult=config.mesh.suspicion_mult,
        tombstone_grace_s=config.sync.tombstone_grace_s,
        forget_after_s=config.sync.forget_after_s,
        fence_keep_s=config.sync.fence_keep_s,
        max_drift_ms=int(config.store.max_drift_s * 1000),
        limits=Limits(config.store.max_key_bytes, config.store.max_value_bytes, config.store.max_keys),
    )
    return MeshNode(settings, prefix_table(), rng, now, wall_clock, state.logs, state.meta)


def build_plane(
    config: Config, node: MeshNode, rng: random.Random, now: float, sealer: Sealer | None = None
) -> WorkerPlane:
    """The worker plane over a mesh node; `sealer` seals API keys where the cluster has a secret."""
    settings = plane_settings(config)
    return WorkerPlane(settings, node.store, rng, now, meta=node.store, sealer=sealer)
