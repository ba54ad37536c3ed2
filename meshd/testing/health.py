"""What health checks find, by script: per worker, and per node that looks.

The one truth about backends in a simulation. A worker answers unless told otherwise; what is said for one
observing node beats what is said for all.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from meshd.workers.urls import normalise_url

Answer = Literal["pass", "fail", "timeout", "flap"]


class Found(NamedTuple):
    """How one check goes: its cause (None for a pass) and how long it takes, in seconds."""

    cause: str | None
    takes_s: float


class HealthScript:
    """Who finds which worker in what state."""

    def __init__(self, takes_s: float = 0.002) -> None:
        """`takes_s`: how long an answer takes."""
        self.takes_s = takes_s
        self._all: dict[str, Answer] = {}
        self._seen_by: dict[tuple[str, str], Answer] = {}
        self._asked: dict[tuple[str, str], int] = {}

    def set(self, url: str, answer: Answer, seen_by: str | None = None) -> None:
        """Let a worker answer so from now on: to everybody, or to the node `seen_by` alone.

        Raises ValueError for an answer that is none, BadRequest for a URL that is none.
        """
        if answer not in get_args(Answer):
            raise ValueError(f"a worker can answer {', '.join(get_args(Answer))}, not {answer!r}")
        url = normalise_url(url)
        if seen_by is None:
            self._all[url] = answer
        else:
            self._seen_by[seen_by, url] = answer

    def clear(self) -> None:
        """Let every worker answer everybody again."""
        self._all.clear()
        self._seen_by.clear()

    def answer(self, node: str, url: str) -> Answer:
        """How `url` answers `node` now."""
        return self._seen_by.get((node, url)) or self._all.get(url, "pass")

    def check(self, node: str, url: str, timeout_s: float) -> Found:
        """Make one check."""
        match self.answer(node, url):
            case "pass":
                return Found(None, self.takes_s)
            case "fail":
                return Found("HTTP 503", self.takes_s)
            case "timeout":
                return Found(f"no answer within {timeout_s:g} s", timeout_s)
            case "flap":
                times = self._asked[node, url] = self._asked.get((node, url), 0) + 1
                return Found(None if times % 2 else "HTTP 503", self.takes_s)
