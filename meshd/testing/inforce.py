"""What follows from registry and store on every node: the settings in force, and the capacity.

Worked out here anew, from the shared keys and the workers as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cbor2

from meshd.config_live import CLUSTER_WIDE, CONFIG_PREFIX
from meshd.testing.checks import Invariant
from meshd.workers.capacity import MAX_CAPACITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshd.testing.cluster import SimCluster
    from meshd.testing.process import Process

_LABELS: Final = ("max_running_requests", "max_num_seqs")
"""The first that a worker has counts; backends are not asked here."""


class SettingsAreInForce(Invariant):
    """A setting has the cluster's value if the map shows one, and else the node's own."""

    name = "shared_settings_are_in_force"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._left_out: set[tuple[str, object]] = set()
        """(node, setting) whose shared value does not go with the node's own file: said, and left out."""

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Note what a node says that it leaves out."""
        if event == "cluster_setting_left_out":
            self._left_out.add((process.name, fields["setting"]))

    def settled(self) -> None:
        """Compare them all, on every node."""
        for process in self.cluster.running():
            for setting in CLUSTER_WIDE:
                if (process.name, setting) in self._left_out:
                    continue
                found = process.node.map.visible(CONFIG_PREFIX + setting)
                wanted = process.config.get(setting) if found is None else cbor2.loads(found.value)
                present = process.settings.config.get(setting)
                if present != wanted:
                    self.fail(process, f"{setting} is {present!r} here, and should be {wanted!r}")


class CapacityAddsUp(Invariant):
    """The capacity is that of the workers that are ready: pinned, or what each tells or is taken for."""

    name = "capacity_adds_up"

    def settled(self) -> None:
        """Add up the ready workers of every node."""
        for process in self.cluster.running():
            settings = process.settings.config.capacity
            ready = [worker for worker in process.plane.registry if worker.is_ready]
            told = [_told(worker.spec.labels) or settings.slots_per_worker for worker in ready]
            wanted = settings.override or (sum(told) if ready else settings.max_concurrent_requests)
            found = process.capacity.read()
            if (found.capacity, found.workers_available) != (min(wanted, MAX_CAPACITY), len(ready)):
                text = f"{found.capacity} of {found.workers_available} workers, not {wanted} of {len(ready)}"
                self.fail(process, f"the capacity is told as {text}")


def _told(labels: Mapping[str, str]) -> int:
    """What a worker's labels tell; 0 for nothing that could be used."""
    told = next((labels[name] for name in _LABELS if name in labels), "")
    return int(told) if told.isdecimal() and told.isascii() else 0
