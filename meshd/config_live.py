"""Settings that may change while daemons run, and which of several sources is in force for each.

This file owns two lists (what the whole cluster may set, what a reload may change), the form in which a
cluster-wide value is stored, and the precedence between sources. Pure: it is given the node's own
configuration and what the store holds, and says what follows. Rules:

- a flag, variable or file of a node beats the cluster's value, and that beats the default;
- a cluster-wide value that this version does not know, or finds wrong, changes nothing here: it is left out
  and shown with the reason, since a newer node may have written it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import cbor2

from meshd.config import Config
from meshd.config_load import SETTINGS, nearest
from meshd.config_schema import Setting
from meshd.errors import BadRequest

#: The store's prefix of cluster-wide settings: `config:capacity.override`.
CONFIG_PREFIX = "config:"
#: The source of a value that comes from the cluster.
FROM_CLUSTER = "cluster"

#: What the cluster may set, since every node takes it on while it runs and it means the same everywhere.
CLUSTER_WIDE: tuple[str, ...] = (
    *(name for name in SETTINGS if name.startswith(("capacity.", "health."))),
    "sync.reconcile_interval_s",
    "log.level",
)
#: What a node takes on when its own files are read again; everything else needs a restart.
RELOADABLE: tuple[str, ...] = (
    *CLUSTER_WIDE,
    "sync.on_stop",
    "sync.publish_loopback",
    "security.secret_file",
)


class Row(NamedTuple):
    """One setting as it stands on a node.

    `cluster` is the cluster-wide value (None: not set), `in_force` what holds here (None for a name that
    is not known here), `source` where that comes from, `problem` why the cluster's value does not count
    here although nothing of this node's own beats it.
    """

    key: str
    cluster: Any
    in_force: Any
    source: str | None
    default: Any
    wanted: str | None
    doc: str | None
    problem: str | None


class Settled(NamedTuple):
    """A node's configuration with the cluster's values worked in, and one row per setting."""

    config: Config
    rows: tuple[Row, ...]

    def problems(self) -> dict[str, str]:
        """Setting -> why its cluster-wide value is left out here."""
        return {row.key: row.problem for row in self.rows if row.problem is not None}


def cluster_setting(name: str) -> Setting:
    """Return the description of a setting that the cluster may set; raises BadRequest naming those."""
    if name in CLUSTER_WIDE:
        return SETTINGS[name]
    if name in SETTINGS:
        raise BadRequest(
            f"{name} cannot be set for the whole cluster: set it in the configuration of each node. "
            f"These can be: {', '.join(CLUSTER_WIDE)}",
            field=name,
        )
    raise BadRequest(
        f"there is no setting {name[:80]!r}{nearest(name[:80], CLUSTER_WIDE)}; "
        f"these can be set for the whole cluster: {', '.join(CLUSTER_WIDE)}",
        field=name[:80],
    )


def checked_value(name: str, value: object) -> Any:
    """Return a cluster-wide value in its one form; raises BadRequest naming the setting and its limits."""
    spec = cluster_setting(name)
    try:
        return spec.from_toml(value)
    except ValueError as error:
        raise BadRequest(f"{name} {error}", field=name) from None


def encode_value(value: Any) -> bytes:
    """Return the stored form of a checked value: canonical CBOR, so that equal values are equal bytes."""
    return cbor2.dumps(value, canonical=True)


def decode_value(stored: bytes) -> Any:
    """Return what `encode_value` encoded; raises ValueError for bytes that are no value."""
    try:
        return cbor2.loads(stored)
    except (cbor2.CBORDecodeError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot be read: {error}") from None


def settle(own: Config, stored: Mapping[str, bytes]) -> Settled:
    """Work the cluster's values (setting -> stored form) into a node's own configuration."""
    taken: dict[str, Any] = {}
    rows = []
    for name in (*CLUSTER_WIDE, *sorted(stored.keys() - set(CLUSTER_WIDE))):
        row = _row(own, name, stored.get(name))
        if row.source == FROM_CLUSTER:
            taken[name] = row.in_force
        rows.append(row)
    return Settled(with_values(own, taken, dict.fromkeys(taken, FROM_CLUSTER)), tuple(rows))


def _row(own: Config, name: str, stored: bytes | None) -> Row:
    spec = SETTINGS.get(name)
    known = spec is not None and name in CLUSTER_WIDE
    cluster, problem = None, None
    if stored is not None:
        try:
            cluster = decode_value(stored)
            if not known:
                problem = "this version of meshd has no such setting for the whole cluster"
            elif spec is not None:
                cluster = spec.from_toml(cluster)
        except ValueError as error:
            problem = str(error)
    if spec is None:
        return Row(name, _plain(cluster), None, None, None, None, None, problem)
    in_force, source = own.get(name), own.sources.get(name, "default")
    if stored is not None and problem is None and source == "default":
        in_force, source = cluster, FROM_CLUSTER
    return Row(
        name,
        _plain(cluster),
        _plain(in_force),
        source,
        _plain(spec.default),
        spec.wanted(),
        spec.doc,
        problem,
    )


def _plain(value: Any) -> Any:
    """Return a value for JSON: what another version stored may be anything."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def with_values(config: Config, values: Mapping[str, Any], sources: Mapping[str, str]) -> Config:
    """Return the configuration with some settings (dotted names) changed, and their sources with them."""
    if not values:
        return config
    changed: dict[str, Any] = {"sources": {**config.sources, **sources}}
    for section in {name.partition(".")[0] for name in values}:
        fields = {
            name.partition(".")[2]: value
            for name, value in values.items()
            if name.partition(".")[0] == section
        }
        changed[section] = dataclasses.replace(getattr(config, section), **fields)
    return dataclasses.replace(config, **changed)


def reloaded(running: Config, fresh: Config) -> tuple[Config, list[str], list[str]]:
    """Work what was read anew into the configuration that runs.

    Returns it, the names that changed and hold now, and those that changed and wait for a restart (their
    running values stay, so that the next reload names them again).
    """
    changed = [name for name in SETTINGS if running.get(name) != fresh.get(name)]
    taken = {name: fresh.get(name) for name in RELOADABLE}
    sources = {name: fresh.sources.get(name, "default") for name in RELOADABLE}
    config = with_values(running, taken, sources)
    config = dataclasses.replace(config, worker=fresh.worker)
    return config, [n for n in changed if n in RELOADABLE], [n for n in changed if n not in RELOADABLE]
