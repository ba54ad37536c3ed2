"""What a worker's server tells about itself: how many requests it runs at once (CAP-6).

Owns where each engine says so, and how its answer is read. SGLang: `/get_server_info`, later `/server_info`,
with one internal state per data-parallel rank. vLLM: `/server_info`, where it is switched on. gRPC engines:
`GetLoads`. Others tell nothing. Answers are read up to a limit and may hold anything at all: what
is not a positive integer in the place where one belongs counts as not told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from meshd.workers.causes import RequestFailed
from meshd.workers.check_grpc import CallFailed, GrpcChecker
from meshd.workers.health_schedule import CheckTarget, server_url
from meshd.workers.http_client import HttpClient

BODY_BYTES: Final = 1024 * 1024
"""SGLang tells about 10 kB a rank; a megabyte takes us some milliseconds to decode."""

_SGLANG: Final = ("/get_server_info", "/server_info")
_VLLM: Final = ("/server_info?config_format=json",)
_PATHS: Final[dict[str, tuple[str, ...]]] = {
    "sglang": _SGLANG,
    "vllm": _VLLM,
    "unspecified": (*_SGLANG, *_VLLM),
}
_RETRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say nothing about whether the server would tell."""


class NotAnswered(Exception):
    """The server could not be asked; it may tell later. `cause` is short and holds no secret."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Rank(NamedTuple):
    """Which data-parallel rank of its server a worker is; (None, None) for a worker that is all of it."""

    rank: int | None = None
    size: int | None = None


class ServerInfo:
    """Asks workers' servers, over the connections of the health checks."""

    def __init__(self, http: HttpClient, grpc: GrpcChecker) -> None:
        self._http = http
        self._grpc = grpc

    def tells(self, target: CheckTarget) -> bool:
        """Whether servers of this kind are worth asking at all."""
        if target.scheme in ("http", "https"):
            return target.runtime_type in _PATHS
        return target.scheme in ("grpc", "grpcs") and target.runtime_type not in ("trtllm", "mlx", "external")

    async def max_running_requests(self, target: CheckTarget, rank: Rank = Rank()) -> int | None:  # noqa: B008  # a constant
        """Return how many requests the worker runs at once, or None if its server does not tell.

        Raises `NotAnswered` if it could not be asked.
        """
        if not self.tells(target):
            return None
        if target.scheme in ("grpc", "grpcs"):
            try:
                return share(await self._grpc.max_running_requests(target), None, rank)
            except CallFailed as failed:
                raise NotAnswered(failed.cause) from failed
        for path in _PATHS[target.runtime_type]:
            found = read_info(await self._get(target, path), rank)
            if found is not None:
                return found
        return None

    async def _get(self, target: CheckTarget, path: str) -> bytes:
        """Return the body, empty where the server does not know the path or does not let us ask."""
        try:
            reply = await self._http.get(
                server_url(target.url),
                path,
                timeout_s=target.timeout_s,
                api_key=target.api_key,
                body_limit_bytes=BODY_BYTES,
            )
        except RequestFailed as failed:
            raise NotAnswered(failed.cause) from failed
        if reply.status in _RETRY:
            raise NotAnswered(f"HTTP {reply.status}")
        return reply.body if 200 <= reply.status < 300 else b""


def read_info(body: bytes, rank: Rank) -> int | None:
    """Return what a `server_info` answer says about the worker, or None if it says nothing usable."""
    try:
        info = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if not isinstance(info, dict):
        return None
    states = info.get("internal_states")
    ranks = [
        _first_limit(state, "effective_max_running_requests_per_dp", "max_running_requests")
        for state in (states if isinstance(states, list) else ())
    ]
    whole = _first_limit(info, "max_running_requests") or _vllm_limit(info.get("vllm_config"))
    return share([limit or 0 for limit in ranks], whole, rank)


def share(ranks: Sequence[int], whole: int | None, rank: Rank) -> int | None:
    """Return a worker's part: the sum of all ranks, or its own rank's; else of what the whole server has."""
    told = [limit if limit > 0 else 0 for limit in ranks]
    if rank.rank is None:
        return sum(told) or whole
    if rank.rank < len(told) and told[rank.rank]:
        return told[rank.rank]
    return None if whole is None else max(1, whole // (rank.size or 1))


def _vllm_limit(config: Any) -> int | None:
    """vLLM's limit holds per engine; one server may stand before several of them."""
    if not isinstance(config, dict):
        return None
    each = _first_limit(config.get("scheduler_config"), "max_num_seqs")
    if each is None:
        return None
    parallel = config.get("parallel_config")
    if not isinstance(parallel, dict) or parallel.get("data_parallel_external_lb") is True:
        return each
    hybrid = parallel.get("data_parallel_hybrid_lb") is True
    size = _first_limit(parallel, "data_parallel_size_local" if hybrid else "data_parallel_size")
    return each * (size or 1)


def _first_limit(holder: Any, *names: str) -> int | None:
    """Return the first of these members that is a positive integer."""
    if isinstance(holder, dict):
        for name in names:
            value = holder.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
                return value
    return None
