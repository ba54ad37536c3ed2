"""`meshctl converge`: do the nodes hold the same?

Each node tells one digest over what it shows; equal digests are equal contents. Asked of several
APIs (`--addr` repeated) every node speaks for itself; asked of one, that node tells what it knows
of the others: their digests where the daemon has `/mesh/converge`, else whether they lack entries.
Rule: a node that is up but does not tell is never counted as agreeing.
"""

from dataclasses import asdict, dataclass
from typing import Any

import click

from meshd.cli import human
from meshd.cli.client import Api
from meshd.cli.cmd_mesh import lag_of
from meshd.cli.exits import CliError, Exit, NoSuchRoute, TimedOut
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, render

POLL_S = 0.1
GONE = ("left", "down")
"""States of members that nobody waits for."""


@dataclass(frozen=True)
class Holding:
    """What one node holds: its digest, or why it is not known."""

    node: str
    digest: str | None
    keys: int | None = None
    lag: int | None = None
    state: str | None = None
    asked: str | None = None
    error: str | None = None


COLUMNS = (
    Column("NODE", field("node")),
    Column("STATE", field("state"), state=True, optional=True),
    Column("DIGEST", lambda row: human.short(row.get("digest"))),
    Column("KEYS", field("keys"), right=True, optional=True),
    Column("LAG", field("lag"), right=True, optional=True),
    Column("ASKED", field("asked"), wide=True),
    Column("ERROR", field("error"), optional=True),
)


def agreed(holdings: list[Holding]) -> bool:
    """Whether all hold the same: one digest, and nobody is known to lack anything.

    A node without a digest counts as agreeing only if it is known to lack nothing.
    """
    digests = {holding.digest for holding in holdings if holding.digest is not None}
    return len(digests) == 1 and all(
        holding.error is None and (holding.lag == 0 or (holding.lag is None and holding.digest is not None))
        for holding in holdings
    )


def ask_each(apis: list[Api]) -> list[Holding]:
    """Every node speaks for itself; one that cannot be reached is listed with its error."""
    found = []
    for api in apis:
        try:
            status = api.get_object("/mesh/status")
        except CliError as problem:
            found.append(Holding(str(api), None, error=problem.message))
        else:
            found.append(_of_status(status, str(api)))
    return found


def _of_status(status: Row, asked: str) -> Holding:
    counts = status.get("counts")
    keys = counts.get("keys") if isinstance(counts, dict) else None
    return Holding(str(status.get("node")), status.get("digest"), keys=keys, asked=asked)


def ask_one(api: Api) -> list[Holding]:
    """What one node knows of all that have not left or gone down."""
    try:
        rows = api.get_rows("/mesh/converge", "nodes")["nodes"]
    except NoSuchRoute:
        return _by_lag(api)
    return [
        Holding(
            node=str(row.get("name")),
            digest=row.get("digest"),
            keys=row.get("keys"),
            lag=lag_of(row),
            state=row.get("state"),
            asked=str(api),
        )
        for row in rows
        if row.get("state") not in GONE
    ]


def _by_lag(api: Api) -> list[Holding]:
    """The asked node's own digest, and for each other member what it is known to lack."""
    own = _of_status(api.get_object("/mesh/status"), str(api))
    rows = api.get_rows("/mesh/members", "members")["members"]
    others = [
        Holding(
            node=str(row.get("name")), digest=None, lag=lag_of(row), state=row.get("state"), asked=str(api)
        )
        for row in rows
        if row.get("name") != own.node and row.get("state") not in GONE
    ]
    return [own, *others]


@click.command(cls=MeshCommand)
@click.option("--wait", is_flag=True, help="Until they agree (see --timeout); tells how long it took.")
@pass_session
@click.pass_context
def converge(ctx: click.Context, session: Session, wait: bool) -> None:
    """Compare what the nodes hold: one digest per node, lag, and the time to agree.

    Give --addr once for each node to hear every node itself. Exit code 0 if all agree, 1 if they
    differ, 4 if they still differ when the time of --wait is over.
    """
    apis = session.apis()
    clock = session.clock
    began = clock.monotonic()
    while True:
        holdings = _ask(apis)
        took_s = clock.monotonic() - began
        if agreed(holdings) or not wait or took_s >= session.wait_s():
            break
        clock.sleep(min(POLL_S, max(0.0, session.wait_s() - took_s)))
    same = agreed(holdings)
    data: dict[str, Any] = {"agreed": same, "nodes": [asdict(holding) for holding in holdings]}
    if wait:
        data["waited_s"] = round(took_s, 3)
    session.emit(data, lambda: _text(session, holdings, same, took_s if wait else None))
    if not same:
        if wait:
            raise TimedOut(
                f"waited {human.duration(session.wait_s())}; the nodes still differ",
                hint="`meshctl members` shows whether they are connected, and their lag",
            )
        ctx.exit(Exit.NO)


def _ask(apis: list[Api]) -> list[Holding]:
    return ask_each(apis) if len(apis) > 1 else ask_one(apis[0])


def _text(session: Session, holdings: list[Holding], same: bool, took_s: float | None) -> str:
    table = render(COLUMNS, [asdict(holding) for holding in holdings], wide=session.wide)
    nodes = human.count(len(holdings), "node")
    if same:
        verdict = f"{nodes} agree" if len(holdings) != 1 else "one node, which agrees with itself"
        if took_s is not None:
            verdict += f" after {human.duration(took_s)}"
        if any(holding.digest is None for holding in holdings):
            verdict += f", as {holdings[0].node} sees it; --addr for every node asks each for its own digest"
    else:
        silent = sum(holding.digest is None and holding.lag is None for holding in holdings)
        verdict = f"{nodes} do not agree" + (f"; {silent} did not tell" if silent else "")
    return f"{table}\n{verdict}"
