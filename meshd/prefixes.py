"""The prefixes of the replicated map: one table for daemons, simulations and offline readers."""

from __future__ import annotations

from crdt.prefixes import Prefix, PrefixTable, Rule
from meshd.config_live import CONFIG_PREFIX
from meshd.protocol.forgetting import FORGET_PREFIX
from meshd.workers.record import PREFIX, classify


def prefix_table() -> PrefixTable:
    """Return the table. Every node must have the same one, or they see different maps."""
    return PrefixTable(
        Prefix(PREFIX, Rule.SINGLE_WRITER, classify),
        Prefix(CONFIG_PREFIX, Rule.MULTI_WRITER),
        Prefix(FORGET_PREFIX, Rule.MULTI_WRITER),
    )
