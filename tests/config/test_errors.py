from __future__ import annotations

import pytest

from meshd import errors


@pytest.mark.req("CTL-5")
@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            errors.BadRequest("url is missing: name the server", field="url"),
            400,
            {"error": "url is missing: name the server", "code": "BAD_REQUEST", "field": "url"},
        ),
        (
            errors.WorkerNotFound("abc"),
            404,
            {"error": "no worker has the id abc; GET /workers lists them", "code": "WORKER_NOT_FOUND"},
        ),
        (
            errors.RevisionMismatch("abc", wanted=1, present=3),
            412,
            {
                "error": "worker abc is at revision 3, not 1: read it again and repeat the change",
                "code": "REVISION_MISMATCH",
                "revision": 3,
            },
        ),
    ],
)
def test_an_error_is_told_as_a_sentence_a_code_and_a_field(
    error: errors.MeshdError, status: int, body: dict[str, object]
) -> None:
    assert error.http_status == status
    assert error.as_body() == body


@pytest.mark.req("REG-1")
def test_a_taken_url_is_refused_with_the_id_that_holds_it() -> None:
    error = errors.WorkerAlreadyExists("http://a:1", "abc")
    assert error.http_status == 409
    assert error.as_body()["code"] == "WORKER_ALREADY_EXISTS"
    assert error.as_body()["worker_id"] == "abc"


def test_an_import_is_refused_with_its_owner() -> None:
    error = errors.WorkerOwnedByPeer("abc", "gateway-2")
    assert error.http_status == 409
    assert error.as_body()["code"] == "WORKER_OWNED_BY_PEER"
    assert error.as_body()["owner"] == "gateway-2"


def test_a_call_may_override_code_and_status() -> None:
    error = errors.BadRequest("too much", code="TOO_MUCH", http_status=429)
    assert (error.code, error.http_status) == ("TOO_MUCH", 429)
    assert (errors.BadRequest.code, errors.BadRequest.http_status) == ("BAD_REQUEST", 400)


def test_a_configuration_error_lists_all_problems_and_names_the_first() -> None:
    problems = [errors.ConfigProblem("a.b", "is wrong", "file"), errors.ConfigProblem("c.d", "is missing")]
    error = errors.ConfigError.from_problems(problems)
    assert error.field == "a.b"
    assert str(error) == "a.b: is wrong (from file)\nc.d: is missing"
    assert error.problems == tuple(problems)


def test_every_error_has_a_code_and_a_status_of_its_kind() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.MeshdError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        assert kind.code.isupper()
        assert 400 <= kind.http_status < 600
        if issubclass(kind, errors.RequestError):
            assert kind.http_status < 500
        assert kind.__name__ in (errors.__doc__ or "")
