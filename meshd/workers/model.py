"""WorkerSpec: what a worker was registered with, and how bodies become one.

Owns the fields of API.md's WorkerSpec, their defaults and limits. Rules it keeps: a field that is not known
here is kept as it came (SYN-11); a body that is refused names the field at fault (CTL-5); `api_key` is in the
spec so that this node can use it, but never in what `spec_to_plain` gives out (SYN-12). `parse_spec` is the
strict edge for people's input; `spec_from_plain` reads what another version of meshd wrote, and is lenient
about words it does not know, so that a newer node's worker types stay readable here.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from meshd.errors import BadRequest
from meshd.workers.urls import normalise_url, scheme_of

WORKER_TYPES: Final = ("regular", "prefill", "decode", "encode")
CONNECTION_MODES: Final = ("http", "grpc", "zmq")
RUNTIME_TYPES: Final = ("unspecified", "sglang", "vllm", "trtllm", "mlx", "tokenspeed", "external")

MAX_DEPTH: Final = 32
"""Nesting of unknown fields; deeper bodies are refused before they can exhaust a reader."""

Plain = dict[str, Any]
"""Values as JSON and CBOR share them: str, bool, int, float, None, and lists and string-keyed maps of these.
"""


class ModelCard(msgspec.Struct, frozen=True, gc=False):
    """One model that a worker serves; `extra` holds the members that are not known here."""

    id: str
    aliases: tuple[str, ...] = ()
    extra: Plain | None = None


class WorkerSpec(msgspec.Struct, frozen=True, gc=False):
    """A worker's registration. `url` is normalised; `models` empty means any model; times are in seconds.

    `health` holds only what the registration gave (it beats the node's settings, LIF-1). `api_key` None means
    "not given", the empty string "none wanted". `extra` holds the fields that are not known here.
    """

    url: str
    models: tuple[ModelCard, ...] = ()
    worker_type: str = "regular"
    connection_mode: str = "http"
    runtime_type: str = "unspecified"
    provider: str | None = None
    labels: dict[str, str] = {}
    priority: int = 50
    cost: float = 1.0
    api_key: str | None = None
    bootstrap_port: int | None = None
    dp_base_url: str | None = None
    dp_rank: int | None = None
    dp_size: int | None = None
    kv_connector: str | None = None
    kv_role: str | None = None
    kv_engine_id: str | None = None
    kv_block_size: int | None = None
    health: Plain = {}
    max_connection_attempts: int = 20
    extra: Plain | None = None

    def __repr__(self) -> str:
        """Name the worker without its key, so that no log or traceback shows one."""
        return f"WorkerSpec({self.url!r})"


_KNOWN: Final = frozenset(WorkerSpec.__struct_fields__) - {"extra"}
_CARD_KNOWN: Final = frozenset({"id", "aliases"})
_OPTIONAL: Final = tuple(
    name
    for name, default in zip(
        WorkerSpec.__struct_fields__[-len(WorkerSpec.__struct_defaults__) :],
        WorkerSpec.__struct_defaults__,
        strict=True,
    )
    if default is None and name not in ("api_key", "extra")
)
_PATCHABLE: Final = ("priority", "cost", "labels", "api_key", "health")

_INT_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "priority": (0, 2**32 - 1),
    "bootstrap_port": (0, 65535),
    "dp_rank": (0, 2**31 - 1),
    "dp_size": (1, 2**31 - 1),
    "kv_block_size": (1, 2**31 - 1),
    "max_connection_attempts": (0, 2**31 - 1),
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "worker_type": WORKER_TYPES,
    "connection_mode": CONNECTION_MODES,
    "runtime_type": RUNTIME_TYPES,
}
# name -> (type, least, whether the least itself is allowed, most)
_HEALTH_LIMITS: Final[Mapping[str, tuple[type, float, bool, float]]] = {
    "timeout_secs": (float, 0, False, 3600),
    "check_interval_secs": (float, 0, False, 86400),
    "drain_settle_secs": (float, 0, True, 86400),
    "success_threshold": (int, 1, True, 1_000_000),
    "failure_threshold": (int, 1, True, 1_000_000),
}


def parse_spec(body: object) -> WorkerSpec:
    """Make a spec of a registration's body (JSON or TOML values). Raises BadRequest naming the field at
    fault.
    """
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object with at least `url`")
    fields = dict(body)
    if "runtime" in fields:
        alias = fields.pop("runtime")
        if fields.setdefault("runtime_type", alias) != alias:
            raise BadRequest("runtime and runtime_type differ; give one of them", field="runtime")
    if "url" not in fields:
        raise BadRequest("url is missing; give the address of the inference server", field="url")
    if isinstance(fields["url"], str):
        fields["url"] = normalise_url(fields["url"])
    if isinstance(fields.get("dp_base_url"), str):
        fields["dp_base_url"] = normalise_url(fields["dp_base_url"], "dp_base_url")
    if fields.get("connection_mode") is None and isinstance(fields["url"], str):
        scheme = scheme_of(fields["url"])
        fields["connection_mode"] = {"grpc": "grpc", "grpcs": "grpc", "ipc": "zmq"}.get(scheme, "http")
    spec = spec_from_plain(fields)
    _check_limits(spec)
    return spec


def patch_spec(spec: WorkerSpec, patch: object) -> WorkerSpec:
    """Return the spec with a PATCH body applied: labels and health are merged member by member, null removes
    one.

    Raises BadRequest for a field that PATCH does not cover (PUT replaces the whole spec), or a bad value.
    """
    if not isinstance(patch, Mapping):
        raise BadRequest("the body must be a JSON object")
    for name in patch:
        if name not in _PATCHABLE:
            raise BadRequest(
                f"{name} cannot be patched, only {', '.join(_PATCHABLE)} can; PUT replaces the whole spec",
                field=str(name),
            )
    plain = spec_to_plain(spec)
    plain["api_key"] = spec.api_key
    for name, value in patch.items():
        if name in ("labels", "health") and isinstance(value, Mapping):
            merged = {**plain.get(name, {}), **value}
            plain[name] = {key: item for key, item in merged.items() if item is not None}
        elif name == "api_key" and value is None:
            plain[name] = ""
        elif value is not None:
            plain[name] = value
    changed = spec_from_plain(plain)
    _check_limits(changed)
    return changed


def spec_to_plain(spec: WorkerSpec) -> Plain:
    """Return all of a spec but its key as plain values; `spec_from_plain` gives an equal spec back."""
    plain: Plain = dict(spec.extra) if spec.extra else {}
    plain.update(
        url=spec.url,
        models=[_card_to_plain(card) for card in spec.models],
        worker_type=spec.worker_type,
        connection_mode=spec.connection_mode,
        runtime_type=spec.runtime_type,
        labels=spec.labels,
        priority=spec.priority,
        cost=spec.cost,
        health=spec.health,
        max_connection_attempts=spec.max_connection_attempts,
    )
    for name in _OPTIONAL:
        value = getattr(spec, name)
        if value is not None:
            plain[name] = value
    return plain


def spec_from_plain(plain: Mapping[str, Any]) -> WorkerSpec:
    """Make a spec of plain values, unknown fields kept. Raises BadRequest naming a field of the wrong type.

    A known field that is null counts as not given. Values are not held against their limits.
    """
    known: Plain = {}
    extra: Plain = {}
    for name, value in plain.items():
        if type(name) is not str:
            raise BadRequest("field names must be strings")
        if name not in _KNOWN:
            extra[name] = plain_value(value, name)
        elif value is not None:
            known[name] = value
    if "models" in known:
        known["models"] = _cards(known["models"])
    if known.get("health"):
        known["health"] = _given_health(known["health"])
    if extra:
        known["extra"] = extra
    try:
        spec = msgspec.convert(known, WorkerSpec)
    except msgspec.ValidationError as error:
        raise _bad_field(error) from None
    if not math.isfinite(spec.cost):
        raise BadRequest("cost must be a finite number", field="cost")
    return spec


def _bad_field(error: msgspec.ValidationError) -> BadRequest:
    """Turn msgspec's `Expected ... - at `$.path`` into our sentence and field."""
    sentence, _, place = str(error).partition(" - at `$")
    field = re.sub(r"\[\.\.\.\]", "", place.rstrip("`")).lstrip(".")
    sentence = sentence[:1].lower() + sentence[1:]
    return BadRequest(f"{field}: {sentence}" if field else sentence, field=field or None)


def _cards(models: object) -> object:
    """Split each model into what is known and what is kept; shapes that are wrong are left for the type
    check.
    """
    if not isinstance(models, list | tuple):
        return models
    cards: list[object] = []
    for place, card in enumerate(models):
        if isinstance(card, Mapping):
            known = {name: value for name, value in card.items() if name in _CARD_KNOWN and value is not None}
            extra = {name: value for name, value in card.items() if name not in _CARD_KNOWN}
            if isinstance(known.get("id"), str):
                known["id"] = sys.intern(known["id"])  # thousands of workers serve the same few models
            if extra:
                known["extra"] = plain_value(extra, f"models[{place}]")
            card = known
        cards.append(card)
    return cards


def _card_to_plain(card: ModelCard) -> Plain:
    plain: Plain = dict(card.extra) if card.extra else {}
    plain["id"] = card.id
    if card.aliases:
        plain["aliases"] = list(card.aliases)
    return plain


def _given_health(health: object) -> object:
    if not isinstance(health, Mapping):
        return health
    given = {name: value for name, value in health.items() if value is not None}
    return plain_value(given, "health")


def plain_value(value: Any, field: str, depth: int = 1) -> Any:
    """Return an unknown field's value in the one form that JSON and CBOR share: whole floats become integers.

    Raises BadRequest naming `field` for what one of them does not have: deep nesting, great or endless
    numbers.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        if kind is int and not -(2**63) <= value < 2**64:
            raise BadRequest(f"{field} holds a number beyond 64 bits", field=field)
        return value
    if kind is float:
        if not math.isfinite(value):
            raise BadRequest(f"{field} must hold finite numbers", field=field)
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if depth > MAX_DEPTH:
        raise BadRequest(f"{field} is nested deeper than {MAX_DEPTH} levels", field=field)
    if isinstance(value, Mapping):
        if any(type(name) is not str for name in value):
            raise BadRequest(f"{field} must have strings for names", field=field)
        return {name: plain_value(item, f"{field}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(item, field, depth + 1) for item in value]
    raise BadRequest(f"{field} holds a {kind.__name__}, which JSON does not have", field=field)


def _check_limits(spec: WorkerSpec) -> None:
    for name, choices in _CHOICES.items():
        if getattr(spec, name) not in choices:
            raise BadRequest(f"{name} must be one of {', '.join(choices)}", field=name)
    for name, (least, most) in _INT_LIMITS.items():
        value = getattr(spec, name)
        if value is not None and not least <= value <= most:
            raise BadRequest(f"{name} must be from {least} to {most}", field=name)
    if spec.cost < 0:
        raise BadRequest("cost must not be negative", field="cost")
    for place, card in enumerate(spec.models):
        if not card.id:
            raise BadRequest(f"models[{place}].id must not be empty", field=f"models[{place}].id")
    _check_health(spec.health)


def _check_health(health: Mapping[str, Any]) -> None:
    for name, (kind, least, inclusive, most) in _HEALTH_LIMITS.items():
        value = health.get(name)
        if value is None:
            continue
        number = type(value) is int or (kind is float and type(value) is float)
        if not number or value < least or (value == least and not inclusive) or value > most:
            what = "a whole number" if kind is int else "a number"
            bound = f"from {least}" if inclusive else f"above {least}"
            raise BadRequest(f"health.{name} must be {what} {bound} to {most:g}", field=f"health.{name}")
    if type(health.get("disable_health_check", False)) is not bool:
        raise BadRequest(
            "health.disable_health_check must be true or false", field="health.disable_health_check"
        )
    path = health.get("health_path", "/")
    if (
        type(path) is not str
        or not path.startswith("/")
        or not path.isascii()
        or not path.isprintable()
        or " " in path
    ):
        raise BadRequest("health.health_path must be a path that starts with /", field="health.health_path")
