"""The errors that meshd tells people about, and how each is shown.

This file owns every error that crosses a room's wall towards a person: over HTTP, in meshctl, or in the log
line before the daemon stops. Rules: an error says whose fault it is (theirs or ours), its sentence says
what to do, and raising one means that nothing was half-applied. Errors of one room's inner workings (a
frame that cannot be decoded, a log that fails its hash) live in that room.

    MeshdError                      something went wrong, told as {error, code[, field]}
    +-- ConfigError                 a setting is unknown, of the wrong type, or out of range; names the field
    +-- RequestError                their fault; the daemon's state is as before
    |   +-- BadRequest              400 BAD_REQUEST
    |   +-- Unauthorized            401 UNAUTHORIZED
    |   +-- Forbidden               403 FORBIDDEN
    |   +-- NotFound                404 NOT_FOUND
    |   |   +-- WorkerNotFound      404 WORKER_NOT_FOUND
    |   |   +-- KeyNotFound         404 KEY_NOT_FOUND
    |   |   +-- MemberNotFound      404 MEMBER_NOT_FOUND
    |   +-- Conflict                409 CONFLICT
    |   |   +-- WorkerAlreadyExists 409 WORKER_ALREADY_EXISTS, with worker_id
    |   |   +-- WorkerOwnedByPeer   409 WORKER_OWNED_BY_PEER, with owner
    |   +-- RevisionMismatch        412 REVISION_MISMATCH, with revision
    |   +-- TooLarge                413 TOO_LARGE (key or value over its limit)
    +-- StoreFull                   507 STORE_FULL (number of keys over its limit)
    +-- Unavailable                 503 UNAVAILABLE (starting, stopping); trying again later may help
    +-- StorageError                ours: the disk or the data directory
        +-- DataDirMismatch         the directory belongs to another node or cluster
        +-- DataDirLocked           another process uses the directory
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple


class MeshdError(Exception):
    """Something went wrong that a person should read.

    `message` is a sentence that says what to do; `code` is stable and upper-case; `field` is the dotted
    name of the setting or body field at fault, if one is; `extra` holds further members of the HTTP body
    (`worker_id`, `owner`). Subclasses set `code` and `http_status`; a call may override either.
    """

    code: str = "INTERNAL"
    http_status: int = 500

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        http_status: int | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.extra: dict[str, object] = dict(extra or {})
        if code is not None:
            self.code = code
        if http_status is not None:
            self.http_status = http_status

    def as_body(self) -> dict[str, object]:
        """Return the JSON body: `error`, `code`, `field` where one is at fault, and the extras."""
        body: dict[str, object] = {"error": self.message, "code": self.code}
        if self.field is not None:
            body["field"] = self.field
        body.update(self.extra)
        return body


class ConfigProblem(NamedTuple):
    """One thing wrong with the configuration: the dotted `field`, what to do, where the value came from."""

    field: str
    message: str
    source: str | None = None

    def __str__(self) -> str:
        place = f" (from {self.source})" if self.source else ""
        return f"{self.field}: {self.message}{place}"


class ConfigError(MeshdError):
    """The configuration is refused; `problems` lists all that is wrong with it, `field` names the first.

    Loading stops before anything is started, so the remedy is always to correct the setting and start again.
    """

    code = "BAD_CONFIG"
    http_status = 400

    def __init__(
        self,
        field: str,
        message: str,
        *,
        source: str | None = None,
        more: Sequence[ConfigProblem] = (),
    ) -> None:
        self.problems: tuple[ConfigProblem, ...] = (ConfigProblem(field, message, source), *more)
        super().__init__("\n".join(str(problem) for problem in self.problems), field=field)

    @classmethod
    def from_problems(cls, problems: Sequence[ConfigProblem]) -> ConfigError:
        """Make one error of at least one problem, in the order given."""
        first, *more = problems
        return cls(first.field, first.message, source=first.source, more=more)


class RequestError(MeshdError):
    """The caller's fault: the request is refused and the daemon's state is as before."""

    code = "BAD_REQUEST"
    http_status = 400


class BadRequest(RequestError):
    """The body, an id or a parameter is malformed; `field` names it where one is at fault."""


class Unauthorized(RequestError):
    """No token, or one that is not known."""

    code = "UNAUTHORIZED"
    http_status = 401


class Forbidden(RequestError):
    """The token is known, and does not allow this."""

    code = "FORBIDDEN"
    http_status = 403


class NotFound(RequestError):
    """What the request names is not here."""

    code = "NOT_FOUND"
    http_status = 404


class WorkerNotFound(NotFound):
    """No worker has this id, nor is it the id of another claim to a worker's URL."""

    code = "WORKER_NOT_FOUND"

    def __init__(self, worker_id: str) -> None:
        super().__init__(f"no worker has the id {worker_id}; GET /workers lists them")
        self.worker_id = worker_id


class KeyNotFound(NotFound):
    """The store holds nothing visible under this key."""

    code = "KEY_NOT_FOUND"

    def __init__(self, key: str) -> None:
        super().__init__(f"the store holds no entry under {key!r}; GET /mesh/store lists the keys")
        self.key = key


class MemberNotFound(NotFound):
    """No member of the mesh has this name."""

    code = "MEMBER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"no member is called {name!r}; GET /mesh/members lists them")
        self.name = name


class Conflict(RequestError):
    """The request is sound, and the present state forbids it."""

    code = "CONFLICT"
    http_status = 409


class WorkerAlreadyExists(Conflict):
    """The URL has an active local worker (a draining one counts); `worker_id` holds it."""

    code = "WORKER_ALREADY_EXISTS"

    def __init__(self, url: str, worker_id: str) -> None:
        super().__init__(
            f"{url} is already registered as {worker_id}; PUT /workers/{worker_id} replaces it",
            extra={"worker_id": worker_id},
        )
        self.worker_id = worker_id


class WorkerOwnedByPeer(Conflict):
    """The worker is an import: only its `owner` may change or remove it."""

    code = "WORKER_OWNED_BY_PEER"

    def __init__(self, worker_id: str, owner: str) -> None:
        super().__init__(
            f"worker {worker_id} is owned by node {owner}: change it there, or POST its URL here to claim it",
            extra={"owner": owner},
        )
        self.worker_id = worker_id
        self.owner = owner


class RevisionMismatch(RequestError):
    """`If-Match` named a revision that is not the present one; `revision` is the present one."""

    code = "REVISION_MISMATCH"
    http_status = 412

    def __init__(self, worker_id: str, wanted: int, present: int) -> None:
        super().__init__(
            f"worker {worker_id} is at revision {present}, not {wanted}: read it again and repeat the change",
            extra={"revision": present},
        )
        self.revision = present


class TooLarge(RequestError):
    """A key, a value or a body is over its limit; nothing was stored."""

    code = "TOO_LARGE"
    http_status = 413


class StoreFull(MeshdError):
    """The store holds as many keys as `store.max_keys` allows; nothing was stored."""

    code = "STORE_FULL"
    http_status = 507


class Unavailable(MeshdError):
    """The daemon cannot do this now (it starts or stops, or waits for a peer); later it may."""

    code = "UNAVAILABLE"
    http_status = 503


class StorageError(MeshdError):
    """The database or its directory failed; what had been acknowledged before is still on disk."""

    code = "STORAGE"
    #: What the daemon exits with when this stops it at start.
    exit_code: ClassVar[int] = 1


class DataDirMismatch(StorageError):
    """The data directory belongs to another node name or cluster; nothing in it was touched (SYN-2)."""

    code = "DATA_DIR_MISMATCH"


class DataDirLocked(StorageError):
    """Another process uses the data directory; nothing in it was touched."""

    code = "DATA_DIR_LOCKED"
