"""Which worker a person means: by full id, by the start of an id, or by URL.

Ids are derived from node and URL and stay the same over restarts, so the start of an id is as
good in a note as the whole. What is ambiguous is refused with the candidates; nothing is guessed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from meshd.cli.client import Api, path_of
from meshd.cli.exits import ApiRefused, CliError, Exit, NoSuchRoute, UsageProblem

Worker = Mapping[str, Any]

MIN_PREFIX = 4
SHOWN_PREFIX = 8
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
ID_START = re.compile(r"[0-9a-f][0-9a-f-]*\Z")
DEFAULT_PORTS = {"http": 80, "https": 443}


class WorkerMissing(CliError):
    """No worker is meant by this word."""

    exit_code: ClassVar[int] = Exit.NO


def list_workers(api: Api, query: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The whole body of `GET /workers`."""
    return api.get_rows("/workers", "workers", query)


def comparable_url(url: str) -> str:
    """A URL in a form in which equal ones are equal: the daemon's own form may differ in case or port."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    scheme = parts.scheme.lower()
    shown = "" if port is None or DEFAULT_PORTS.get(scheme) == port else f":{port}"
    return f"{scheme}://{(parts.hostname or '').lower()}{shown}{parts.path.rstrip('/')}"


def matching(workers: Sequence[Worker], word: str) -> list[Worker]:
    """Every worker that `word` may mean."""
    if "://" in word:
        wanted = comparable_url(word)
        return [worker for worker in workers if comparable_url(str(worker.get("url"))) == wanted]
    start = word.lower()
    return [worker for worker in workers if any(known.startswith(start) for known in _ids(worker))]


def _ids(worker: Worker) -> list[str]:
    claims = worker.get("claims") or ()
    return [str(worker.get("id")), *(str(claim.get("id")) for claim in claims)]


def check_word(word: str) -> str:
    """Refuse at once what can be neither id nor URL; returns the word."""
    if "://" in word or (len(word) >= MIN_PREFIX and ID_START.match(word.lower())):
        return word
    hint = f"write a URL with its scheme, an id, or the first {MIN_PREFIX} or more characters of an id"
    raise UsageProblem(f"{word!r} is neither a worker's URL nor an id", hint=hint)


def locate(api: Api, word: str) -> Worker | None:
    """The one worker that is meant, `None` if there is none; raises `UsageProblem` when it is ambiguous."""
    check_word(word)
    if UUID.match(word.lower()):
        return _by_id(api, word.lower())
    if "://" in word:
        try:
            known = api.get_object("/mesh/why", {"url": word}).get("id")
        except NoSuchRoute:
            pass  # an older daemon: look through the whole list instead
        else:
            return _by_id(api, str(known)) if known else None
    found = matching(list_workers(api)["workers"], word)
    if len(found) > 1:
        raise UsageProblem(
            f"{word!r} means {len(found)} workers: "
            + ", ".join(f"{worker['id']} ({worker['url']})" for worker in found[:5]),
            hint="write more of the id, or the URL",
        )
    return found[0] if found else None


def _by_id(api: Api, worker_id: str) -> Worker | None:
    try:
        return api.get_object(path_of("workers", worker_id))
    except ApiRefused as problem:
        if problem.code == "WORKER_NOT_FOUND":
            return None
        raise


def find(api: Api, word: str) -> Worker:
    """Like `locate`, but that there is none is an error: raises `WorkerMissing`."""
    found = locate(api, word)
    if found is None:
        raise WorkerMissing(
            f"this node knows no worker {word}",
            hint="`meshctl worker ls` lists what it knows; `meshctl why URL` tells about a URL",
        )
    return found


def shown_ids(workers: Sequence[Worker]) -> int:
    """How many characters of an id tell these workers apart (8 at least, 36 at most)."""
    ids = [str(worker.get("id")) for worker in workers]
    length = SHOWN_PREFIX
    while length < 36 and len({known[:length] for known in ids}) < len(set(ids)):
        length += 1
    return length
