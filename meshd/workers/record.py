"""The worker record: how a worker stands in the store, byte for byte, and whose it is.

Owns the ids (SYN-2), the keys, and the CBOR map `{v, spec, status, owner, revision, ...}`. Rules it keeps:
equal records are equal bytes on every node (canonical CBOR, numbers normalised, CRD-7); fields that are not
known here are kept and written back (SYN-11); API keys are inside only sealed (SYN-12); a record belongs to
the owner from whose name and URL its key is derived, and nobody else's counts (SYN-1, SYN-7). Decoding is
bounded: no CBOR tag is ever decoded, since some of them build regular expressions, huge numbers or cycles.
What `classify` has decoded waits for the `decode_record` that follows, so that each is decoded once.
"""

from __future__ import annotations

import sys
import uuid
from collections import OrderedDict
from functools import lru_cache
from typing import Any, Final, NoReturn

import cbor2
import msgspec

from crdt.prefixes import Claim as Ownership
from meshd.errors import BadRequest
from meshd.workers.health_machine import WORST_FIRST
from meshd.workers.model import Plain, WorkerSpec, plain_value, spec_from_plain, spec_to_plain

PREFIX: Final = "worker:"
NAMESPACE: Final = uuid.UUID("8f1f2a54-6f0e-5d5b-9a38-6f0d3e3c5a11")
"""The mesh namespace of worker ids. Never to change: ids are in every store and in users' scripts."""

VERSION: Final = 1
"""Greatest record version that this meshd writes. A greater one is read as far as it is understood."""

MAX_DEPTH: Final = 40
"""Nesting of a record: the spec's own limit, and the levels around it."""

_WAITING_MOST: Final = 1024
_WAITING_BYTES: Final = 4096
"""How many decoded records wait for their taker, the oldest going first, and the longest value that does."""
_waiting: Final[OrderedDict[bytes, WorkerRecord]] = OrderedDict()

_STATUSES: Final = {status: sys.intern(status) for status in WORST_FIRST}
_KNOWN: Final = frozenset({"v", "spec", "status", "owner", "revision", "removing", "protected", "sealed_key"})
# Every tag that cbor2 would decode by itself; all others reach the tag hook.
_BUILT_IN_TAGS: Final = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)


class RecordError(ValueError):
    """These bytes are no worker record that this version can read."""


class WorkerRecord(msgspec.Struct, frozen=True, gc=False):
    """One claim to a worker, as its owner published it.

    `status` is the owner's word. `removing`: the owner is draining it in order to remove it. `protected`: the
    backend wants an API key, of which `sealed_key` is the sealed form where the cluster has a secret. `extra`
    holds fields that are not known here. The spec's `api_key` is not part of a record.
    """

    spec: WorkerSpec
    status: str
    owner: str
    revision: int
    removing: bool = False
    protected: bool = False
    sealed_key: bytes | None = None
    extra: Plain | None = None
    version: int = VERSION


@lru_cache(maxsize=256)
def worker_id(node: str, url: str) -> str:
    """Return the id of the claim of the node called `node` to a normalised URL."""
    return str(uuid.uuid5(NAMESPACE, f"{node}\n{url}"))


def worker_key(node: str, url: str) -> str:
    """Return the store key of that claim."""
    return PREFIX + worker_id(node, url)


def encode_record(record: WorkerRecord) -> bytes:
    """Return the record as canonical CBOR; equal records give equal bytes."""
    plain: Plain = dict(record.extra) if record.extra else {}
    plain.update(
        v=record.version,
        spec=spec_to_plain(record.spec),
        status=record.status,
        owner=record.owner,
        revision=record.revision,
    )
    if record.removing:
        plain["removing"] = True
    if record.protected:
        plain["protected"] = True
    if record.sealed_key is not None:
        plain["sealed_key"] = record.sealed_key
    return cbor2.dumps(plain, canonical=True)


def decode_record(value: bytes) -> WorkerRecord:
    """Read a record. Raises RecordError for anything that is not one, however it was made."""
    waiting = _waiting.pop(value, None)
    if waiting is not None:
        return waiting
    plain = _load(value)
    if type(plain) is not dict:
        raise RecordError("a worker record is a map")
    version = _take(plain, "v", int)
    if version < 1:
        raise RecordError("the record's version is not positive")
    revision = _take(plain, "revision", int)
    if not 0 < revision < 2**53:
        raise RecordError("revision is out of range")
    status = _STATUSES.get(
        _take(plain, "status", str), "not_ready"
    )  # a newer node's word that is not `ready`
    sealed = plain.get("sealed_key")
    if sealed is not None and type(sealed) is not bytes:
        raise RecordError("sealed_key must be bytes")
    try:
        spec = spec_from_plain(_take(plain, "spec", dict))
        extra = plain_value({name: item for name, item in plain.items() if name not in _KNOWN}, "record")
    except BadRequest as error:
        raise RecordError(error.message) from None
    return WorkerRecord(
        spec=spec,
        status=status,
        owner=sys.intern(_take(plain, "owner", str)),
        revision=revision,
        removing=plain.get("removing") is True,
        protected=plain.get("protected") is True or sealed is not None,
        sealed_key=sealed,
        extra=extra or None,
        version=version,
    )


def classify(owner: str, key: str, value: bytes) -> Ownership:
    """Tell what an entry of `owner`'s log under a `worker:` key is: its own, a foreign one, or unreadable.

    The same on every node: a function of owner, key and bytes alone.
    """
    try:
        record = decode_record(value)
    except RecordError:
        return Ownership.UNREADABLE
    if key != worker_key(owner, record.spec.url):
        return Ownership.FOREIGN
    if len(value) <= _WAITING_BYTES:
        _waiting[value] = record
        if len(_waiting) > _WAITING_MOST:
            _waiting.popitem(last=False)
    return Ownership.OWN


def _refuse_tag(*_: object) -> NoReturn:
    raise RecordError("tags have no place in a worker record")


_REFUSED: Final = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)


def _load(value: bytes) -> Any:
    try:
        return cbor2.loads(
            value,
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSED,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError, MemoryError, EOFError) as error:
        raise RecordError(f"not CBOR: {error}") from None


def _take(plain: Plain, name: str, kind: type) -> Any:
    value = plain.get(name)
    if type(value) is not kind:
        raise RecordError(f"{name} must be of type {kind.__name__}")
    return value
