"""Health checks of http:// and https:// workers: GET the health path, any 2xx passes (LIF-7)."""

from __future__ import annotations

from meshd.workers.causes import RequestFailed
from meshd.workers.health_schedule import CheckTarget, server_url
from meshd.workers.http_client import HttpClient


class HttpChecker:
    """Checks workers over one client, whose connections it shares."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def check(self, target: CheckTarget) -> str | None:
        """Return None if the worker answers with any 2xx within its timeout, else the cause (LIF-4)."""
        try:
            reply = await self._client.get(
                server_url(target.url),
                target.health_path,
                timeout_s=target.timeout_s,
                api_key=target.api_key,
            )
        except RequestFailed as failed:
            return failed.cause
        return None if 200 <= reply.status < 300 else f"HTTP {reply.status}"

    def close(self) -> None:
        """Close the client's idle connections."""
        self._client.close()
