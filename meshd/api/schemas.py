"""The bodies of the API as types: they check small request bodies, and they are what OpenAPI and the docs
show.

Answers are not built from these types (that would cost a copy on the way out); a test holds real answers
against them instead. Every object may hold further fields: older clients must ignore what newer daemons add.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Status = Literal["pending", "ready", "not_ready", "failed", "draining"]
Level = Literal["debug", "info", "warning", "error", "critical"]
HostPort = Annotated[str, Meta(min_length=3, max_length=300, examples=["10.0.0.7:7390"])]


class ErrorBody(Struct):
    """An error: what is wrong and what to do about it."""

    error: str
    code: str
    field: str | msgspec.UnsetType = msgspec.UNSET


class Model(Struct):
    """A model that a worker serves."""

    id: str
    aliases: list[str] = []


class Health(Struct):
    """How a worker is checked; what is left out follows the node's settings. Times are in seconds."""

    timeout_secs: float = 5
    check_interval_secs: float = 10
    success_threshold: int = 2
    failure_threshold: int = 3
    disable_health_check: bool = False
    drain_settle_secs: float = 5
    health_path: str = "/health"


class WorkerSpecBody(Struct):
    """A worker as it is registered. Fields that are not listed here are kept as they come."""

    url: Annotated[
        str, Meta(description="http, https, grpc, grpcs or ipc", examples=["http://10.0.0.5:8000"])
    ]
    models: Annotated[list[Model], Meta(description="empty: serves any model")] = []
    worker_type: Literal["regular", "prefill", "decode", "encode"] = "regular"
    connection_mode: Literal["http", "grpc", "zmq"] = "http"
    runtime_type: Literal["unspecified", "sglang", "vllm", "trtllm", "mlx", "tokenspeed", "external"] = (
        "unspecified"
    )
    provider: str | None = None
    labels: dict[str, str] = {}
    priority: int = 50
    cost: float = 1.0
    api_key: Annotated[str | None, Meta(description="used for health checks, never shown")] = None
    bootstrap_port: int | None = None
    dp_base_url: str | None = None
    dp_rank: int | None = None
    dp_size: int | None = None
    kv_connector: str | None = None
    kv_role: str | None = None
    kv_engine_id: str | None = None
    kv_block_size: int | None = None
    health: Health = msgspec.field(default_factory=Health)
    max_connection_attempts: int = 20


class WorkerPatch(Struct):
    """What PATCH changes: labels and health are merged, everything else is set."""

    priority: int | msgspec.UnsetType = msgspec.UNSET
    cost: float | msgspec.UnsetType = msgspec.UNSET
    labels: dict[str, str | None] | msgspec.UnsetType = msgspec.UNSET
    api_key: str | msgspec.UnsetType | None = msgspec.UNSET
    health: Health | msgspec.UnsetType = msgspec.UNSET


class WorkerClaim(Struct):
    """One node's registration of a worker's URL."""

    owner: str
    id: str
    healthy: bool


class WorkerInfo(WorkerSpecBody, kw_only=True):
    """A worker as this node sees it: its spec (without the API key), and its state here."""

    id: str
    model_id: str | None
    status: Status
    is_healthy: bool
    load: int
    origin: Literal["local", "mesh"]
    owner: str
    revision: int
    since: Annotated[str, Meta(description="RFC 3339: since when it has this status")]
    last_error: str | None
    claims: list[WorkerClaim]


class WorkerStats(Struct):
    """How many workers of each type are listed."""

    prefill_count: int
    decode_count: int
    regular_count: int


class WorkerListing(Struct):
    """A page of workers; `total` counts all that match, `stats` are theirs."""

    workers: list[WorkerInfo]
    total: int
    stats: WorkerStats
    next: Annotated[
        str | msgspec.UnsetType, Meta(description="pass it as `after` for the next page; absent on the last")
    ] = msgspec.UNSET


class Accepted(Struct):
    """A registration that was accepted: the worker is in the registry and on disk."""

    status: str
    worker_id: str
    url: str
    location: str
    message: str


class Changed(Struct):
    """A change that was accepted: the registry shows it and it is on disk."""

    status: str
    worker_id: str
    message: str


class JoinBody(Struct, forbid_unknown_fields=True):
    """Addresses of members to join by: mesh ports, not API ports."""

    peers: Annotated[list[HostPort], Meta(min_length=1, max_length=1000)]


class LeaveBody(Struct, forbid_unknown_fields=True):
    """How to leave: workers are withdrawn unless they are to be kept."""

    keep_workers: bool = False


class LogLevelBody(Struct, forbid_unknown_fields=True):
    """The least level that is logged from now on."""

    level: Level


class SettingBody(Struct, forbid_unknown_fields=True):
    """The value that a setting is to have on every node that does not set it itself."""

    value: Annotated[bool | int | float | str, Meta(examples=[2000])]


class Setting(Struct):
    """One setting: the cluster's value (null: not set), what is in force here, and where that comes from."""

    key: str
    cluster: Any
    in_force: Any
    source: Annotated[str | None, Meta(description="default, cluster, a file, a variable, or a flag")]
    default: Any
    wanted: Annotated[str | None, Meta(description="which values it takes")]
    doc: str | None
    problem: Annotated[str | None, Meta(description="why the cluster's value is left out here")]
    set_on: Annotated[str | None, Meta(description="the node on which the cluster's value was set")]
    age_s: float | None
    beaten_by: Annotated[str | None, Meta(description="what of this node's own beats the cluster's value")]
    cluster_wide: Annotated[bool, Meta(description="false: this version does not know it")]


class SettingListing(Struct):
    """Every setting that the cluster may set."""

    settings: list[Setting]


class ReloadedBody(Struct):
    """What reading the node's files again did; `workers` lists URLs added, changed, removed and refused."""

    status: str
    message: str
    applied: list[str]
    needs_restart: list[str]
    workers: dict[str, Any]


class Told(Struct):
    """An instruction was accepted."""

    status: str
    message: str


class Capacity(Struct):
    """How many requests the ready workers take at once, and how that is known."""

    capacity: int
    source: Literal["override", "worker_reported", "mixed", "legacy_fallback"]
    workers_available: int
    per_model: dict[str, Any]
    cluster: dict[str, Any]


class MemberListing(Struct):
    """Every member, this node included."""

    members: list[dict[str, Any]]


class StoreListing(Struct):
    """Entries of the store in key order."""

    entries: list[dict[str, Any]]
    next: Annotated[
        str | msgspec.UnsetType, Meta(description="pass it as `after` for the next page; absent on the last")
    ] = msgspec.UNSET


class Ready(Struct):
    """Whether the store is loaded and the daemon listens."""

    ready: bool
