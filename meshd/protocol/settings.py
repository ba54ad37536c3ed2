"""What a node is told at its birth. Times in seconds unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field

from crdt.lww_map import Limits


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Identity and timing of one node.

    `suspect_after_s` and `down_after_s` follow from the heartbeat: a member is suspected once
    it missed three beats and a probe's time, and down `suspicion_mult` beats later.
    """

    node: str
    cluster: str = "default"
    zone: str = ""
    version: str = ""
    heartbeat_s: float = 1.0
    probe_timeout_s: float = 0.5
    suspicion_mult: float = 4.0
    tombstone_grace_s: float = 600.0
    forget_after_s: float = 86_400.0
    fence_keep_s: float = 2_592_000.0
    max_drift_ms: int = 60_000
    limits: Limits = field(default_factory=Limits)

    @property
    def suspect_after_s(self) -> float:
        """Silence after which a member is `suspect`."""
        return 3 * self.heartbeat_s + self.probe_timeout_s

    @property
    def down_after_s(self) -> float:
        """Silence after which a member is `down`."""
        return self.suspect_after_s + self.suspicion_mult * self.heartbeat_s
