"""A small OpenAI-compatible server: a stand-in for vLLM or SGLang that needs no model.

    python -m meshd.demo.openai_server --name one --model tiny [--port 0] [--url-file FILE]

It listens on loopback and owns nothing but its own memory. What it answers:

| call | answer |
| --- | --- |
| `GET /health` | 200; 503 while it starts (`--startup-delay-s`) or when it was switched off |
| `GET /v1/models` | the one model it serves |
| `POST /v1/chat/completions` | a short answer that names the server and repeats the question; `stream` too |
| `GET /get_server_info` | `max_running_requests`, if `--max-running-requests` was given (else 404) |
| `PUT /control` `{"health_status", "health_delay_s"}` | switches what `/health` answers, and how slowly |
| `GET /control` | what is set, and how many health checks and completions were served |

With `--api-key KEY` everything but `/control` asks for `Authorization: Bearer KEY`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

_MAX_BODY_BYTES = 1 << 20
"""Largest request body taken, in bytes: a demo needs no more."""

_WORDS_PER_CHUNK = 1
"""How many words of the answer go into one streamed chunk."""


class OpenAIServer(ThreadingHTTPServer):
    """The server; `health_status` and `health_delay_s` may be changed while it runs."""

    daemon_threads = True
    # Many daemons check at once in the tests; the default backlog of 5 would refuse some.
    request_queue_size = 128

    def __init__(
        self,
        port: int,
        name: str,
        model: str,
        *,
        startup_delay_s: float = 0.0,
        max_running_requests: int | None = None,
        api_key: str | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.name = name
        self.model = model
        self.ready_at = time.monotonic() + startup_delay_s
        self.max_running_requests = max_running_requests
        self.api_key = api_key
        self.health_status = 200
        self.health_delay_s = 0.0
        self.counts = {"health": 0, "completions": 0}
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Bind without asking any name service for this machine's full name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]

    @property
    def url(self) -> str:
        """Its base URL, such as `http://127.0.0.1:40123`."""
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, what: str) -> None:
        """Count one served request of a kind of `counts`."""
        with self._lock:
            self.counts[what] += 1

    def control(self) -> dict[str, Any]:
        """What `GET /control` shows."""
        return {
            "name": self.name,
            "health_status": self.health_status,
            "health_delay_s": self.health_delay_s,
            "counts": dict(self.counts),
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAIServer
    # An answer is a few small writes; waiting to merge them would cost 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/control":
            self._answer(200, self.server.control())
        elif not self._allowed():
            return
        elif path == "/health":
            self._health()
        elif path == "/v1/models":
            model = {"id": self.server.model, "object": "model", "owned_by": "meshd-demo"}
            self._answer(200, {"object": "list", "data": [model]})
        elif path == "/get_server_info" and self.server.max_running_requests is not None:
            self._answer(200, {"max_running_requests": self.server.max_running_requests})
        else:
            self._refuse(404, f"no such path: {path}")

    def do_PUT(self) -> None:
        body = self._body()
        if self.path != "/control" or body is None:
            self._refuse(404, "PUT goes to /control")
            return
        self.server.health_status = int(body.get("health_status", self.server.health_status))
        self.server.health_delay_s = float(body.get("health_delay_s", self.server.health_delay_s))
        self._answer(200, self.server.control())

    def do_POST(self) -> None:
        body = self._body()
        if not self._allowed():
            return
        if self.path != "/v1/chat/completions" or body is None:
            self._refuse(404, "POST goes to /v1/chat/completions, with a JSON object")
            return
        asked = body.get("model", self.server.model)
        if asked != self.server.model:
            self._refuse(404, f"the model {asked!r} is not served here")
            return
        self.server.count("completions")
        messages = body.get("messages") or [{}]
        text = f"{self.server.name} heard: {messages[-1].get('content', '')}"
        if body.get("stream"):
            self._stream(text)
        else:
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            words = len(text.split())
            usage = {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}
            self._answer(200, self._completion("chat.completion", [choice], usage=usage))

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: health checks would fill the log."""

    def _health(self) -> None:
        time.sleep(self.server.health_delay_s)
        self.server.count("health")
        starting = time.monotonic() < self.server.ready_at
        status = 503 if starting else self.server.health_status
        self._answer(status, {"status": "starting" if starting else "ok" if status < 300 else "unwell"})

    def _completion(self, kind: str, choices: list[Any], **more: Any) -> dict[str, Any]:
        created = int(time.time())
        head = {"id": "chatcmpl-demo", "object": kind, "created": created, "model": self.server.model}
        return {**head, "choices": choices, **more}

    def _stream(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        words = text.split(" ")
        for start in range(0, len(words), _WORDS_PER_CHUNK):
            piece = " ".join(words[start : start + _WORDS_PER_CHUNK])
            delta = {"content": piece if start == 0 else " " + piece}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            self._event(json.dumps(self._completion("chat.completion.chunk", [choice])))
        self._event("[DONE]")
        self.close_connection = True

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def _allowed(self) -> bool:
        key = self.server.api_key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._refuse(401, "this server asks for its API key")
        return False

    def _body(self) -> dict[str, Any] | None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY_BYTES:
            self.close_connection = True
            return None
        try:
            body = json.loads(self.rfile.read(length) or b"null")
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"message": message, "type": "invalid_request_error"}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="openai_server", description="A small OpenAI-compatible server.")
    parser.add_argument("--name", default="demo", help="the name it answers with")
    parser.add_argument("--model", default="tiny", help="the id of the model it serves")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 picks one")
    parser.add_argument("--url-file", type=Path, help="write the base URL to this file once listening")
    parser.add_argument("--startup-delay-s", type=float, default=0.0, help="seconds of 503 at the start")
    parser.add_argument("--max-running-requests", type=int, help="what it reports as its capacity")
    parser.add_argument("--api-key", help="the bearer token it asks for")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Serve until killed; SIGTERM ends it at once, since there is nothing to save."""
    args = _arguments(argv)
    server = OpenAIServer(
        args.port,
        args.name,
        args.model,
        startup_delay_s=args.startup_delay_s,
        max_running_requests=args.max_running_requests,
        api_key=args.api_key,
    )
    print(f"{args.name} serves {args.model} at {server.url}", flush=True)
    if args.url_file is not None:
        # Renamed into place, so that a reader never sees half a URL.
        half = args.url_file.with_suffix(".part")
        half.write_text(server.url, "utf-8")
        os.replace(half, args.url_file)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
