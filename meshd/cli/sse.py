"""Server-Sent Events: the parser, and a reader that reconnects where it left off.

Rules: an event is handed over once it is complete; its id is remembered only then, so that a
stream that breaks in the middle of an event repeats it instead of losing it. Comments (the
daemon's keep-alive) count as life and nothing else. Lines and events are bounded.
"""

import http.client
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from meshd.cli.client import Api
from meshd.cli.exits import ApiRefused, CliError

MAX_LINE_BYTES = 64 << 20
"""A snapshot of 10,000 workers is one line of about 10 MB."""

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
QUIET_LIMIT_S = 90.0
"""A stream without even a comment for this long is taken for dead."""


class SseEvent(NamedTuple):
    """One event: its id (`None` if the stream gave none so far), its type, and its data."""

    id: str | None
    event: str
    data: str


def parse_events(lines: Iterable[bytes]) -> Iterator[SseEvent]:
    """Events from raw lines; what is unfinished at the end is dropped, as the standard says."""
    last_id: str | None = None
    event, data = "", list[str]()
    for raw in lines:
        line = raw.rstrip(b"\r\n").decode("utf-8", "replace")
        if not line:
            if data:
                yield SseEvent(last_id, event or "message", "\n".join(data))
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(MAX_LINE_BYTES):
        yield line


def follow(
    api: Api,
    *,
    types: str | None,
    since: str | None,
    say: Callable[[str], None],
    reconnect: bool = True,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[SseEvent]:
    """Events for as long as the caller reads; `say` is told about outages, once each.

    The first connection must succeed, and an answer that refuses (a wrong token, an unknown
    type) always ends it: raises `CliError`. Later losses are retried with growing pauses.
    """
    last_id = since
    failures = 0
    connected_before = False
    while True:
        headers = {"Accept": "text/event-stream"}
        if last_id is not None and connected_before:
            headers["Last-Event-ID"] = last_id
        query = {"types": types, "since": None if connected_before else since}
        try:
            response = api.stream("/events", query, headers, quiet_s=QUIET_LIMIT_S)
        except ApiRefused:
            raise
        except CliError as problem:
            if not connected_before or not reconnect:
                raise
            cause = problem.message
        else:
            if failures:
                say("connected again")
            failures, connected_before = 0, True
            cause = "the daemon ended the stream"
            try:
                for event in parse_events(_lines(response)):
                    if event.id is not None:
                        last_id = event.id
                    yield event
            except (OSError, http.client.HTTPException) as problem:
                cause = str(problem) or type(problem).__name__
            finally:
                response.close()
            if not reconnect:
                return
        if failures == 0:
            say(f"{cause}; connecting again")
        sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
        failures += 1
