"""The stand-in server answers as an OpenAI-compatible server does, and can be made unwell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from meshd.demo.client import Connection, call
from meshd.demo.openai_server import OpenAIServer


@contextmanager
def _serving(server: OpenAIServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_it_lists_its_model_and_answers_a_chat() -> None:
    with _serving(OpenAIServer(0, "one", "tiny")) as address:
        models = call(address, "GET", "/v1/models").expect(200).json()
        assert [model["id"] for model in models["data"]] == ["tiny"]
        question = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        answer = call(address, "POST", "/v1/chat/completions", question).expect(200).json()
        assert answer["choices"][0]["message"]["content"] == "one heard: hello"
        assert call(address, "GET", "/control").json()["counts"] == {"health": 0, "completions": 1}


def test_it_streams_the_same_answer_in_chunks() -> None:
    with _serving(OpenAIServer(0, "one", "tiny")) as address:
        question = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
        answer = call(address, "POST", "/v1/chat/completions", question).expect(200)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.body.count(b"chat.completion.chunk") == 3
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_another_model_or_a_broken_body_is_refused() -> None:
    with _serving(OpenAIServer(0, "one", "tiny")) as address:
        assert call(address, "POST", "/v1/chat/completions", {"model": "huge"}).status == 404
        assert call(address, "POST", "/v1/chat/completions", b"{").status == 404
        assert call(address, "GET", "/elsewhere").status == 404


def test_its_health_can_be_switched_off_and_on_again() -> None:
    with _serving(OpenAIServer(0, "one", "tiny")) as address:
        connection = Connection(address)
        for status in (200, 503, 200):
            connection.call("PUT", "/control", {"health_status": status}).expect(200)
            assert connection.call("GET", "/health").status == status
        connection.close()


def test_it_is_unwell_while_it_starts() -> None:
    with _serving(OpenAIServer(0, "one", "tiny", startup_delay_s=600.0)) as address:
        answer = call(address, "GET", "/health")
        assert (answer.status, answer.json()) == (503, {"status": "starting"})


def test_its_capacity_is_told_only_if_it_was_given() -> None:
    with _serving(OpenAIServer(0, "one", "tiny", max_running_requests=8)) as address:
        assert call(address, "GET", "/get_server_info").json() == {"max_running_requests": 8}
    with _serving(OpenAIServer(0, "one", "tiny")) as address:
        assert call(address, "GET", "/get_server_info").status == 404


def test_a_protected_server_asks_for_its_key() -> None:
    with _serving(OpenAIServer(0, "one", "tiny", api_key="secret")) as address:
        assert call(address, "GET", "/health").status == 401
        assert call(address, "GET", "/health", headers={"Authorization": "Bearer secret"}).status == 200
