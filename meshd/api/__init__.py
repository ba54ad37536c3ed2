"""The HTTP API: workers, mesh, events, metrics, on TCP and a unix socket.

One table (`operations`) drives routes, access, OpenAPI and docs. A request passes `boundary` (guard, body,
errors) and reaches a handler (`handle_*`), which calls the daemon through the narrow seam of `backend`.
Streams read one bounded ring (`eventlog`, `sse`). `connection` and `server` close the traps of the HTTP
server underneath. Limits stand in `limits`, each with its reason.
"""

from meshd.api.app import create_app, serve_api
from meshd.api.server import ApiEndpoints

__all__ = ["ApiEndpoints", "create_app", "serve_api"]
