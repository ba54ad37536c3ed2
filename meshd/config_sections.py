"""Every setting of meshd: its type, default, unit, limits, and how it bears on others.

This file owns the list of keys. It holds no logic: defaults that follow from other settings are None here and
filled in by `config_load`, relations between settings are checked there. Durations are seconds and take
fractions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meshd.config_checks import (
    check_advertise,
    check_bind,
    check_dialled_list,
    check_dns_names,
    check_name,
    check_path_of_url,
)
from meshd.config_schema import setting

#: A day and a year, in seconds; the longest duration that any setting takes is a year.
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
#: The greatest capacity that gateways can be told: an unsigned 16-bit number (CAP-2).
MAX_CAPACITY = 65_535


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Who this node is."""

    name: str = setting(
        None,
        """The node's name in the mesh: unique in the cluster, and the same in every life of the node, since
        the ids of its workers derive from it. Default: the host's name up to its first dot.""",
        form="a name",
        check=check_name,
    )
    cluster: str = setting(
        "default",
        "The cluster this node belongs to; nodes of another cluster are refused.",
        form="a name",
        check=check_name,
    )
    zone: str | None = setting(
        None,
        "Where the node stands (rack, data centre, region); neighbours in the same zone are preferred.",
        form="a name",
        check=check_name,
    )
    data_dir: Path = setting(
        None,
        """Where the database, the unix socket and endpoints.json live. It belongs to one node.name and
        node.cluster. Default: the platform's directory for user data.""",
    )


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """How this node meets, hears and doubts the others."""

    bind: str = setting(
        "127.0.0.1:7390",
        """host:port that peers connect to; port 0 picks one. An address other than loopback needs TLS, or
        security.allow_plaintext.""",
        form="host:port",
        check=check_bind,
    )
    advertise: str = setting(
        None,
        """host:port told to peers, where it differs from mesh.bind (containers, address translation); port 0
        stands for the port that was bound. Default: mesh.bind; must be set when that is a wildcard.""",
        form="host:port",
        check=check_advertise,
    )
    join: tuple[str, ...] = setting(
        (),
        "host:port of members to join by; every address of each is tried, for ever.",
        form="a list of host:port",
        check=check_dialled_list,
    )
    heartbeat_s: float = setting(
        1.0,
        "How often a node tells its peers that it lives, with its vector.",
        unit="seconds",
        minimum=0.05,
        maximum=60,
    )
    probe_timeout_s: float = setting(
        0.5,
        "What a silent member is allowed beyond three heartbeats before it is suspect: the time of a probe.",
        unit="seconds",
        minimum=0.01,
        maximum=60,
    )
    suspicion_mult: float = setting(
        4.0,
        "How many heartbeats a silent member stays suspect before it counts as down.",
        minimum=1,
        maximum=100,
    )
    full_mesh_max: int = setting(
        32,
        "Up to this many members every node connects to every other; above it, to mesh.active_view of them.",
        minimum=2,
        maximum=1000,
    )
    active_view: int = setting(
        6,
        "Neighbours per node above mesh.full_mesh_max; at most mesh.full_mesh_max.",
        minimum=3,
        maximum=64,
    )


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Where members are found besides mesh.join; all ways may be on at once."""

    dns: tuple[str, ...] = setting(
        (),
        """Names looked up again and again: host:port (every A and AAAA record), or a service name that
        begins with an underscore (SRV records, which carry the port).""",
        form="a list of host:port or _service names",
        check=check_dns_names,
    )
    zeroconf: bool = setting(
        False,
        """Announce this node as _meshd._tcp on the local network and join those of the same cluster; on
        loopback only while mesh.bind is loopback.""",
    )


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """The replicated map and its database."""

    max_drift_s: float = setting(
        60.0,
        "How far a peer's clock may be off before a warning; nothing is decided by it.",
        unit="seconds",
        above=0,
        maximum=YEAR_S,
    )
    max_key_bytes: int = setting(
        512, "The longest key this node writes.", unit="bytes", minimum=64, maximum=4096
    )
    max_value_bytes: int = setting(
        262_144, "The largest value this node writes.", unit="bytes", minimum=1024, maximum=4_194_304
    )
    max_keys: int = setting(
        1_000_000,
        "The most keys the store may hold before this node's own new ones are refused.",
        unit="keys",
        minimum=1,
        maximum=100_000_000,
    )
    durability: str = setting(
        "normal",
        """normal: an acknowledged write survives the death of the process, and a power cut may cost the last
        moments; full: it is on disk before it is acknowledged, which costs a disk flush each time.""",
        choices=("normal", "full"),
    )


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """How workers travel between registry and store, and when an owner is forgotten."""

    reconcile_interval_s: float = setting(
        30.0,
        "How often registry and store are compared whole, to repair whatever was missed.",
        unit="seconds",
        minimum=0.1,
        maximum=DAY_S,
    )
    tombstone_grace_s: float = setting(
        600.0,
        "How long this node keeps its own tombstones before it collects them.",
        unit="seconds",
        minimum=0,
        maximum=YEAR_S,
    )
    forget_after_s: float = setting(
        DAY_S,
        "How long an owner may be gone, as observed while connected, before its entries are dropped.",
        unit="seconds",
        minimum=1,
        maximum=YEAR_S,
    )
    fence_keep_s: float = setting(
        30 * DAY_S,
        """How long it is remembered which generations of a forgotten owner are over; longer than
        sync.forget_after_s.""",
        unit="seconds",
        minimum=2,
        maximum=10 * YEAR_S,
    )
    startup_grace_s: float = setting(
        30.0,
        "With sync.on_start = withdraw: how long former workers may take to be registered again.",
        unit="seconds",
        minimum=0,
        maximum=DAY_S,
    )
    on_start: str = setting(
        "restore",
        """restore: the node's former workers are its workers again; withdraw: those not registered again
        within sync.startup_grace_s are removed everywhere.""",
        choices=("restore", "withdraw"),
    )
    on_stop: str = setting(
        "keep",
        """keep: peers go on serving this node's workers while it is away; withdraw: it removes them before
        it goes.""",
        choices=("keep", "withdraw"),
    )
    publish_loopback: bool = setting(
        None,
        """Publish workers that other machines cannot reach (loopback URLs, ipc://). Default: true while
        mesh.bind is loopback, since all members are then on this machine.""",
    )


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Health checks of workers; a worker's own `health` beats the first seven."""

    timeout_secs: float = setting(5.0, "How long a check may take.", unit="seconds", above=0, maximum=600)
    check_interval_secs: float = setting(
        10.0, "The time between checks of a worker, before jitter.", unit="seconds", above=0, maximum=DAY_S
    )
    success_threshold: int = setting(
        2, "Passes in a row that make a local worker ready.", minimum=1, maximum=1000
    )
    failure_threshold: int = setting(
        3,
        "Failures in a row that make a ready worker not_ready; three times as many more make it failed.",
        minimum=1,
        maximum=1000,
    )
    disable_health_check: bool = setting(
        False, "Check no worker that does not ask for it itself; unchecked workers are ready at once."
    )
    drain_settle_secs: float = setting(
        5.0,
        "How long a removed worker is shown as draining before it goes; 0 removes at once.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    health_path: str = setting("/health", "The path that HTTP checks ask for.", check=check_path_of_url)
    fast_interval_s: float = setting(
        0.5,
        "The time between checks of a new worker during health.fast_window_s.",
        unit="seconds",
        minimum=0.01,
        maximum=60,
    )
    fast_window_s: float = setting(
        10.0,
        "How long a new worker is checked fast; these checks never fail it.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    check_imports: str = setting(
        "always",
        """Whether workers of other nodes are checked from here too: always, owner_down (only while their
        owner is down), or never.""",
        choices=("always", "owner_down", "never"),
    )
    remove_failed_workers: bool = setting(
        False, "Remove local workers that have failed, everywhere; imports are never removed for it."
    )
    recover_failed_workers: bool = setting(
        False,
        """Check failed local workers once a minute and take them back as pending on a pass; of no effect with
        health.remove_failed_workers.""",
    )


@dataclass(frozen=True, slots=True)
class CapacityConfig:
    """The number of in-flight requests that the ready fleet takes."""

    override: int = setting(
        0,
        "The capacity, pinned; 0 derives it from the workers.",
        unit="requests",
        minimum=0,
        maximum=MAX_CAPACITY,
    )
    slots_per_worker: int = setting(
        64,
        "What a ready worker that reports no max_running_requests counts for.",
        unit="requests",
        minimum=1,
        maximum=MAX_CAPACITY,
    )
    max_concurrent_requests: int = setting(
        1024, "The capacity while no worker is ready.", unit="requests", minimum=0, maximum=MAX_CAPACITY
    )


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """The HTTP API."""

    bind: str = setting(
        "127.0.0.1:7391", "host:port of the API; port 0 picks one.", form="host:port", check=check_bind
    )
    socket: Path = setting(None, "The API's unix socket. Default: meshd.sock in node.data_dir.")
    read_token_file: Path | None = setting(
        None, "A file with the bearer tokens, one a line, that may read over TCP."
    )
    write_token_file: Path | None = setting(
        None, "A file with the bearer tokens, one a line, that may also write over TCP."
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The log, on standard error."""

    level: str = setting(
        "info", "The least level that is logged.", choices=("debug", "info", "warning", "error", "critical")
    )
    format: str = setting(
        None,
        "console (for eyes) or json (one object a line). Default: console on a terminal, else json.",
        choices=("console", "json"),
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Mutual TLS between nodes; all three or none."""

    ca: Path | None = setting(None, "The certificates, PEM, that members' certificates must be signed by.")
    cert: Path | None = setting(None, "This node's certificate, PEM; its name must be node.name.")
    key: Path | None = setting(None, "The key of tls.cert, PEM.")


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """What is trusted."""

    allow_plaintext: bool = setting(
        None,
        """Let mesh.bind be more than loopback without TLS. Default: true while mesh.bind is loopback, else
        false.""",
    )
    strict_ownership: bool = setting(
        None, "Let nothing count that its owner has not signed. Default: on with TLS, off without."
    )
    secret_file: Path | None = setting(
        None, "A file with the cluster's secret, by which workers' API keys travel sealed."
    )


#: The sections in the order in which they are shown.
SECTIONS: dict[str, type] = {
    "node": NodeConfig,
    "mesh": MeshConfig,
    "discovery": DiscoveryConfig,
    "store": StoreConfig,
    "sync": SyncConfig,
    "health": HealthConfig,
    "capacity": CapacityConfig,
    "api": ApiConfig,
    "log": LogConfig,
    "tls": TlsConfig,
    "security": SecurityConfig,
}
