"""`meshctl worker wait`: until workers are in a state, or it is certain that they will not be.

Asks again and again rather than following events: it must also be right on a daemon that restarts
meanwhile, and a listing is the whole truth at its moment. Rule: waiting never ends in doubt: 0 they
are there, 1 one has failed for good, 4 the time is up, with what is still missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import click

from meshd.cli import human
from meshd.cli.client import Api
from meshd.cli.complete import worker_ids
from meshd.cli.exits import CliError, Exit, TimedOut, Unreachable, UsageProblem
from meshd.cli.find_worker import Worker, check_word, list_workers, locate
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session

POLL_S = 0.1
SLOW_POLL_S = 1.0
STATES = ("ready", "pending", "not_ready", "failed", "draining", "gone", "known")


class WillNeverBe(CliError):
    """A worker has failed and is not checked any more: waiting for `ready` is pointless."""

    exit_code: ClassVar[int] = Exit.NO


@dataclass(frozen=True)
class Standing:
    """One awaited thing: whether it is as wished, and how it is."""

    word: str
    reached: bool
    is_now: str


Judge = Callable[[], list[Standing]]


def standing(info: Worker | None, word: str, wanted: str) -> Standing:
    """How the worker that `word` means stands; raises `WillNeverBe` for a failed local one."""
    if info is None:
        return Standing(word, wanted == "gone", "not known to this node")
    status = str(info.get("status"))
    is_now = status + (f": {error}" if (error := info.get("last_error")) else "")
    if wanted == "ready" and status == "failed" and info.get("origin") == "local":
        raise WillNeverBe(
            f"{info.get('url')} has failed and is not checked any more: "
            f"{info.get('last_error') or 'no cause told'}",
            hint="when it serves again, remove it and add it again",
        )
    return Standing(word, wanted in ("known", status), is_now)


def wait_until(session: Session, api: Api, words: Sequence[str], wanted: str) -> float:
    """Return the seconds it took once every worker is as wished; raises `TimedOut` naming the others."""
    return _poll(session, api, lambda: [standing(locate(api, word), word, wanted) for word in words], wanted)


def _poll(session: Session, api: Api, judge: Judge, wanted: str) -> float:
    limit_s = session.wait_s()
    clock = session.clock
    started = clock.monotonic()
    deadline = started + limit_s
    cost_s = 0.0
    lost: str | None = None
    missing: list[Standing] = []
    while True:
        began = clock.monotonic()
        try:
            missing = [one for one in judge() if not one.reached]
        except (Unreachable, TimedOut) as problem:
            if api.address is None:
                raise
            lost = problem.message  # it answered before: it restarts, perhaps
        else:
            lost = None
            if not missing:
                return round(clock.monotonic() - started, 3)
        cost_s = clock.monotonic() - began
        if clock.monotonic() >= deadline:
            break
        # A listing of ten thousand workers costs the daemon something: wait at least as long as it took.
        clock.sleep(min(max(POLL_S, cost_s), SLOW_POLL_S, max(0.0, deadline - clock.monotonic())))
    if lost is not None:
        raise TimedOut(f"waited {human.duration(limit_s)}; at the end the daemon did not answer: {lost}")
    raise TimedOut(
        f"waited {human.duration(limit_s)}; not {wanted} yet: "
        + ", ".join(f"{one.word} ({one.is_now})" for one in missing[:10])
        + (f" and {len(missing) - 10} more" if len(missing) > 10 else ""),
        hint="`meshctl why URL` tells more; --timeout waits longer",
    )


def _all_standing(
    workers: Sequence[Worker], wanted: str, count: int | None, model: str | None
) -> list[Standing]:
    """Every worker, or the number of workers, as wished."""
    if wanted == "gone":
        return [Standing(str(info["url"]), False, str(info.get("status"))) for info in workers]
    fitting = [info for info in workers if wanted in ("known", info.get("status"))]
    if count is not None:
        what = f"{count} workers" + (f" of {model}" if model else "")
        return [Standing(what, len(fitting) >= count, f"{len(fitting)} of {len(workers)}")]
    if not workers:
        return [Standing("any worker", False, "none is registered")]
    return [standing(info, str(info["url"]), wanted) for info in workers]


@click.command(cls=MeshCommand)
@click.argument("workers", nargs=-1, metavar="[WORKER...]", shell_complete=worker_ids)
@click.option("--all", "every", is_flag=True, help="Every worker that this node knows.")
@click.option("--count", type=click.IntRange(min=0), metavar="N", help="At least N workers.")
@click.option("--model", help="With --all or --count: only workers that serve this model.")
@click.option("--for", "wanted", type=click.Choice(STATES), default="ready", show_default=True)
@pass_session
def wait(
    session: Session,
    workers: tuple[str, ...],
    every: bool,
    count: int | None,
    model: str | None,
    wanted: str,
) -> None:
    """Wait until workers are ready, or in another state, or gone.

    Exit code 0 when they are, 1 when one has failed for good, 4 when --timeout (60 s) is over.
    """
    if bool(workers) + every + (count is not None) != 1:
        raise UsageProblem(
            "name WORKERs, or give --all, or --count N", hint="for example: meshctl worker wait --count 4"
        )
    api = session.api()
    if workers:
        words = [check_word(word) for word in workers]
        took_s = wait_until(session, api, words, wanted)
        what = ", ".join(words)
    else:

        def judge() -> list[Standing]:
            return _all_standing(list_workers(api, {"model": model})["workers"], wanted, count, model)

        took_s = _poll(session, api, judge, wanted)
        what = human.count(count, "worker") if count is not None else "every worker"
    answer = {"state": wanted, "waited_s": took_s}
    session.emit(answer, lambda: f"{what}: {wanted} after {human.duration(took_s)}")
