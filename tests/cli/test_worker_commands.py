from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import FakeClock, Meshctl
from tests.support.fake_api import Answer, FakeApi, Request

A = "1f3a0000-0000-5000-8000-000000000001"
B = "2c440000-0000-5000-8000-000000000002"


def info(worker_id: str, url: str, **more: Any) -> dict[str, Any]:
    return {
        "id": worker_id,
        "url": url,
        "models": [{"id": "llama"}],
        "model_id": "llama",
        "status": "ready",
        "is_healthy": True,
        "since": "2026-01-02T03:03:35Z",
        "origin": "local",
        "owner": "a",
        "revision": 1,
        "load": 0,
        "last_error": None,
        "claims": [],
        **more,
    }


WORKERS = [
    info(A, "http://10.0.0.5:8000"),
    info(
        B,
        "http://10.0.0.6:8000",
        models=[],
        model_id=None,
        status="not_ready",
        is_healthy=True,
        origin="mesh",
        owner="b",
        last_error="connection refused",
    ),
]


def listing(workers: list[dict[str, Any]]) -> dict[str, Any]:
    stats = {"prefill_count": 0, "decode_count": 0, "regular_count": len(workers)}
    return {"workers": workers, "total": len(workers), "stats": stats}


@pytest.fixture(autouse=True)
def registry(daemon: FakeApi) -> None:
    daemon.on("GET", "/workers", listing(WORKERS))
    for worker in WORKERS:
        daemon.on("GET", f"/workers/{worker['id']}", worker)


def accepted(worker_id: str, url: str) -> Answer:
    body = {"status": "accepted", "worker_id": worker_id, "url": url, "location": f"/workers/{worker_id}"}
    return Answer({**body, "message": "registered"}, 202)


@pytest.mark.req("CTL-2", "CTL-3", "LIF-8")
def test_workers_are_listed_with_their_real_status_age_owner_and_error(meshctl: Meshctl) -> None:
    done = meshctl("worker", "ls")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ID", "URL", "MODEL", "STATUS", "SINCE", "ORIGIN", "OWNER", "ERROR"],
        ["1f3a0000", "http://10.0.0.5:8000", "llama", "ready", "30s", "local", "a", "-"],
        ["2c440000", "http://10.0.0.6:8000", "any", "not_ready", "30s", "mesh", "b", "connection", "refused"],
    ]


def test_ids_are_shown_as_long_as_it_takes_to_tell_them_apart(daemon: FakeApi, meshctl: Meshctl) -> None:
    twins = [info(A, "http://x:1"), info(A[:-1] + "9", "http://y:1")]
    daemon.on("GET", "/workers", listing(twins))
    assert {line.split()[0] for line in meshctl("worker", "ls").stdout.splitlines()[1:]} == {
        A,
        A[:-1] + "9",
    }


@pytest.mark.req("CTL-3")
def test_filters_are_the_daemons(daemon: FakeApi, meshctl: Meshctl) -> None:
    meshctl("worker", "ls", "--model", "llama", "--type", "decode", "--status", "ready", "--origin", "mesh",
            "--owner", "b", "--label", "gpu=h100", "--label", "rack:7", "--limit", "5")  # fmt: skip
    assert daemon.requests[-1].query == {
        "model": ["llama"],
        "type": ["decode"],
        "status": ["ready"],
        "origin": ["mesh"],
        "owner": ["b"],
        "label": ["gpu:h100", "rack:7"],
        "limit": ["5"],
    }


def test_quiet_prints_whole_ids_for_scripts(meshctl: Meshctl) -> None:
    assert meshctl("worker", "ls", "-q").stdout.split() == [A, B]


def test_a_listing_that_was_cut_short_says_so(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/workers", {**listing(WORKERS), "total": 9})
    assert meshctl("worker", "ls", "--limit", "2").stdout.endswith("2 of 9 shown\n")


@pytest.mark.req("CTL-3", "LIF-4")
@pytest.mark.parametrize("word", [B, "2c44", "2C44", "http://10.0.0.6:8000", "HTTP://10.0.0.6:8000/"])
def test_a_worker_is_named_by_id_start_of_id_or_url(meshctl: Meshctl, word: str) -> None:
    done = meshctl("worker", "get", word)
    assert done.exit_code == 0, done.output
    assert "connection refused" in done.stdout
    assert "not_ready" in done.stdout


def test_a_url_is_looked_up_by_the_daemon_where_it_can(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("GET", "/mesh/why", {"url": "http://10.0.0.6:8000", "known": True, "id": B})
    assert meshctl("worker", "get", "HTTP://10.0.0.6:8000").exit_code == 0
    assert daemon.asked("GET", "/workers") == []
    daemon.on("GET", "/mesh/why", {"url": "http://10.0.0.7:8000", "known": False})
    assert meshctl("worker", "get", "http://10.0.0.7:8000").exit_code == 1


def test_the_id_of_another_claim_means_the_serving_worker(daemon: FakeApi, meshctl: Meshctl) -> None:
    claims = [{"owner": "a", "id": A, "healthy": True}, {"owner": "c", "id": "99990000-x", "healthy": False}]
    daemon.on("GET", "/workers", listing([info(A, "http://x:1", claims=claims)]))
    done = meshctl("worker", "get", "9999")
    assert "CLAIMED BY" in done.stdout
    assert done.exit_code == 0


@pytest.mark.req("CTL-6")
@pytest.mark.parametrize(("word", "code"), [("beef", 1), ("http://nowhere:1", 1), ("xyz", 2), ("1f", 2)])
def test_an_unknown_worker_is_no_and_a_word_that_cannot_be_one_is_usage(
    meshctl: Meshctl, word: str, code: int
) -> None:
    assert meshctl("worker", "get", word).exit_code == code


def test_an_ambiguous_start_of_an_id_is_refused_with_the_candidates(
    daemon: FakeApi, meshctl: Meshctl
) -> None:
    daemon.on("GET", "/workers", listing([info(A, "http://x:1"), info("1f3b0000-x", "http://y:1")]))
    daemon.on("DELETE", f"/workers/{A}", Answer({}, 202))
    done = meshctl("worker", "rm", "1f3a")
    assert done.exit_code == 0
    daemon.on("GET", "/workers", listing([info(A, "http://x:1"), info("1f3a9999-x", "http://y:1")]))
    done = meshctl("worker", "rm", "1f3a")
    assert done.exit_code == 2
    assert "http://x:1" in done.stderr
    assert "http://y:1" in done.stderr
    assert len(daemon.asked("DELETE", f"/workers/{A}")) == 1


@pytest.mark.req("CTL-3")
def test_add_sends_only_what_was_given(daemon: FakeApi, meshctl: Meshctl, tmp_path: Path) -> None:
    daemon.on("POST", "/workers", accepted(A, "http://10.0.0.5:8000"))
    done = meshctl("worker", "add", "http://10.0.0.5:8000")
    assert done.exit_code == 0
    assert done.stdout == f"{A}  http://10.0.0.5:8000  registered\n"
    assert daemon.requests[-1].body == {"url": "http://10.0.0.5:8000"}
    key = tmp_path / "key"
    key.write_text("sk-1\n")
    words = (
        "--model llama --model qwen --type decode --mode grpc --runtime vllm --label gpu=h100 --priority 80 "
        f"--cost 1.5 --api-key-file {key} --health-path /ping --health-interval 2.5 --no-health-check "
        "--set dp_size=4 --set kv_role=both --set health.extra=true"
    )
    assert meshctl("worker", "add", "http://10.0.0.5:8000", *words.split()).exit_code == 0
    assert daemon.requests[-1].body == {
        "url": "http://10.0.0.5:8000",
        "worker_type": "decode",
        "connection_mode": "grpc",
        "runtime_type": "vllm",
        "priority": 80,
        "cost": 1.5,
        "models": [{"id": "llama"}, {"id": "qwen"}],
        "labels": {"gpu": "h100"},
        "health": {
            "health_path": "/ping",
            "check_interval_secs": 2.5,
            "disable_health_check": True,
            "extra": True,
        },
        "api_key": "sk-1",
        "dp_size": 4,
        "kv_role": "both",
    }


@pytest.mark.req("CTL-6")
def test_a_second_registration_is_refused_with_exit_code_1(daemon: FakeApi, meshctl: Meshctl) -> None:
    body = {"error": f"http://x:1 is already registered as {A}", "code": "WORKER_ALREADY_EXISTS"}
    daemon.on("POST", "/workers", Answer(body, 409))
    done = meshctl("worker", "add", "http://x:1")
    assert done.exit_code == 1
    assert A in done.stderr


@pytest.mark.parametrize(
    "words",
    [(), ("http://x:1", "--file", "f"), ("--file", "f", "--cost", "2"), ("http://x:1", "--label", "gpu")],
)
def test_add_without_one_clear_worker_is_a_usage_error(meshctl: Meshctl, words: tuple[str, ...]) -> None:
    assert meshctl("worker", "add", *words).exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"url": "http://x:1"}',
        '[{"url": "http://x:1"}]',
        "workers:\n- url: http://x:1\n",
        "url: http://x:1",
    ],
)
def test_specs_come_from_json_or_yaml_files(
    daemon: FakeApi, meshctl: Meshctl, tmp_path: Path, content: str
) -> None:
    daemon.on("POST", "/workers", accepted(A, "http://x:1"))
    (tmp_path / "spec").write_text(content)
    assert meshctl("worker", "add", "-f", str(tmp_path / "spec")).exit_code == 0
    assert daemon.requests[-1].body == {"url": "http://x:1"}
    assert meshctl("worker", "add", "-f", "-", stdin=content).exit_code == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]", "a: [", '{"workers": []}'])
def test_a_file_without_workers_is_a_usage_error(meshctl: Meshctl, content: str) -> None:
    done = meshctl("worker", "add", "-f", "-", stdin=content)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_of_several_workers_the_good_ones_are_added_and_the_bad_ones_named(
    daemon: FakeApi, meshctl: Meshctl
) -> None:
    def register(request: Request) -> Answer:
        if request.body["url"] == "http://bad:1":
            return Answer({"error": "http://bad:1 is taken", "code": "WORKER_ALREADY_EXISTS"}, 409)
        return accepted(A, request.body["url"])

    daemon.on("POST", "/workers", register)
    urls = [{"url": "http://x:1"}, {"url": "http://bad:1"}, {"url": "http://y:1"}]
    done = meshctl("worker", "add", "-f", "-", stdin=json.dumps(urls))
    assert done.exit_code == 1
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["http://x:1", "http://y:1"]
    assert "http://bad:1 is taken" in done.stderr
    assert "1 of 3 failed" in done.stderr


@pytest.mark.req("CTL-3", "REG-3")
def test_set_patches_what_was_given_and_may_demand_a_revision(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("PATCH", f"/workers/{A}", Answer({"status": "accepted", "worker_id": A}, 202))
    done = meshctl("worker", "set", "1f3a", "--priority", "80", "--label", "gpu=h100", "--unlabel", "old",
                   "--if-match", "4")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert daemon.requests[-1].body == {"priority": 80, "labels": {"gpu": "h100", "old": None}}
    assert daemon.requests[-1].headers["if-match"] == '"4"'
    assert meshctl("worker", "set", "1f3a").exit_code == 2


@pytest.mark.req("CTL-3", "LIF-9")
def test_rm_drains_unless_it_is_to_be_now(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("DELETE", f"/workers/{A}", Answer({"status": "accepted", "worker_id": A}, 202))
    assert "draining, then removed" in meshctl("worker", "rm", "1f3a").stdout
    assert daemon.requests[-1].query == {}
    assert "removed" in meshctl("worker", "rm", A, "--now").stdout
    assert daemon.requests[-1].query == {"drain": ["0"]}


def test_removing_an_import_names_its_owner(daemon: FakeApi, meshctl: Meshctl) -> None:
    body = {"error": "node b owns it: remove it there", "code": "WORKER_OWNED_BY_PEER", "owner": "b"}
    daemon.on("DELETE", f"/workers/{B}", Answer(body, 409))
    done = meshctl("worker", "rm", B)
    assert done.exit_code == 1
    assert "node b owns it" in done.stderr


@pytest.mark.req("CTL-3")
@pytest.mark.parametrize("verb", ["drain", "undrain"])
def test_drain_and_undrain_act_on_every_named_worker(daemon: FakeApi, meshctl: Meshctl, verb: str) -> None:
    for worker_id in (A, B):
        daemon.on("POST", f"/workers/{worker_id}/{verb}", Answer({"status": "accepted"}, 202))
    done = meshctl("worker", verb, "1f3a", "2c44", "-o", "json")
    assert done.exit_code == 0
    assert [answer["worker_id"] for answer in json.loads(done.stdout)] == [A, B]


# --- waiting ---------------------------------------------------------------------------------


MISSING = Answer({"error": "no worker has that id", "code": "WORKER_NOT_FOUND"}, 404)


def turn(daemon: FakeApi, *statuses: str, **more: Any) -> None:
    """Let worker A change its status with every question; "gone" means that it is not known."""
    left = list(statuses)

    def now() -> list[dict[str, Any]]:
        status = left.pop(0) if len(left) > 1 else left[0]
        return [] if status == "gone" else [info(A, "http://x:1", status=status, **more)]

    def one(_request: Request) -> Answer:
        found = now()
        return Answer(found[0]) if found else MISSING

    daemon.on("GET", "/workers", lambda _request: Answer(listing(now())))
    daemon.on("GET", f"/workers/{A}", one)


@pytest.mark.req("CTL-3", "CTL-6")
def test_wait_ends_when_the_worker_is_ready(daemon: FakeApi, meshctl: Meshctl, clock: FakeClock) -> None:
    turn(daemon, "gone", "pending", "pending", "ready")
    done = meshctl("worker", "wait", "http://x:1")
    assert done.exit_code == 0, done.output
    assert "ready after" in done.stdout
    assert len(clock.slept) == 3


@pytest.mark.req("CTL-6")
def test_wait_in_vain_is_a_timeout_that_tells_what_is_missing(
    daemon: FakeApi, meshctl: Meshctl, clock: FakeClock
) -> None:
    turn(daemon, "pending", last_error="HTTP 503")
    done = meshctl("worker", "wait", A, "--timeout", "3")
    assert done.exit_code == 4
    assert sum(clock.slept) == pytest.approx(3)
    assert "pending: HTTP 503" in done.stderr


@pytest.mark.req("CTL-6", "LIF-3")
def test_waiting_for_a_local_worker_that_failed_ends_at_once(daemon: FakeApi, meshctl: Meshctl) -> None:
    turn(daemon, "failed", last_error="HTTP 500")
    done = meshctl("worker", "wait", A)
    assert done.exit_code == 1
    assert "HTTP 500" in done.stderr


@pytest.mark.req("LIF-3")
def test_a_failed_import_may_still_come_back_and_is_waited_for(daemon: FakeApi, meshctl: Meshctl) -> None:
    turn(daemon, "failed", "pending", "ready", origin="mesh")
    assert meshctl("worker", "wait", A).exit_code == 0


def test_wait_for_gone_ends_when_the_worker_is_not_listed(daemon: FakeApi, meshctl: Meshctl) -> None:
    turn(daemon, "draining", "gone")
    assert meshctl("worker", "wait", "http://x:1", "--for", "gone").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--count", "1"), 0),
        (("--count", "2"), 4),
        (("--all",), 4),
        (("--all", "--for", "known"), 0),
        ((), 2),
        (("--all", "--count", "1"), 2),
        ((A, "--all"), 2),
    ],
)
def test_wait_for_all_or_for_a_number_of_workers(meshctl: Meshctl, words: tuple[str, ...], code: int) -> None:
    assert meshctl("worker", "wait", "--timeout", "1", *words).exit_code == code


def test_waiting_survives_a_restart_of_the_daemon(daemon: FakeApi, meshctl: Meshctl) -> None:
    answers = [MISSING, Answer(cut=True), Answer(cut=True), Answer(WORKERS[0])]

    def restarting(_request: Request) -> Answer:
        return answers.pop(0)

    daemon.on("GET", f"/workers/{A}", restarting)
    done = meshctl("worker", "wait", A)
    assert done.exit_code == 0, done.output


@pytest.mark.req("CTL-6")
def test_waiting_for_a_daemon_that_never_was_there_is_unreachable(meshctl: Meshctl) -> None:
    assert meshctl("worker", "wait", A, "--addr", "127.0.0.1:1", aimed=False).exit_code == 3


def test_add_with_wait_ends_when_the_new_worker_is_ready(daemon: FakeApi, meshctl: Meshctl) -> None:
    daemon.on("POST", "/workers", accepted(A, "http://x:1"))
    turn(daemon, "pending", "ready")
    assert meshctl("worker", "add", "http://x:1", "--wait").exit_code == 0
    turn(daemon, "pending")
    assert meshctl("worker", "add", "http://x:1", "--wait", "--timeout", "1").exit_code == 4
