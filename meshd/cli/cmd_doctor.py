"""`meshctl doctor`: everything that may be wrong with a node and what it sees, each with what to do about it.

Rules: a finding is a failure (something does not work), a warning (it may soon, or may be meant so), or what
was looked at and is well. Whatever the daemon does not tell, being older, is left out rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import click

from meshd.cli import human
from meshd.cli.client import Api
from meshd.cli.cmd_mesh import lag_of
from meshd.cli.exits import ApiRefused, Exit, NoSuchRoute
from meshd.cli.find_worker import list_workers
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session
from meshd.cli.table import Row

Grade = Literal["ok", "warn", "fail"]
MARKS: dict[Grade, tuple[str, str]] = {
    "ok": ("ok  ", "green"),
    "warn": ("warn", "yellow"),
    "fail": ("FAIL", "red"),
}
MOST_NAMED = 5
"""Names listed in one finding."""
SLOW_RTT_MS = 500.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    grade: Grade
    about: str
    found: str
    advice: str | None = None


@dataclass
class Facts:
    """What the daemon told; empty where it did not."""

    ready: bool = True
    status: Row = field(default_factory=dict)
    members: list[Row] = field(default_factory=list)
    partitions: Row = field(default_factory=dict)
    settings: list[Row] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Workers by status."""
    failing: list[Row] = field(default_factory=list)


def ask(api: Api) -> Facts:
    """Ask the daemon for all that is examined; raises `CliError` if it does not answer."""
    facts = Facts()
    try:
        api.get("/readyz")
    except ApiRefused as problem:
        if problem.status != 503:
            raise
        facts.ready = False
    facts.status = api.get_object("/mesh/status")
    facts.members = api.get_rows("/mesh/members", "members")["members"]
    try:
        facts.partitions = api.get_object("/mesh/partitions")
        facts.settings = api.get_rows("/config", "settings")["settings"]
    except NoSuchRoute:
        pass  # an older daemon: it is examined by what it tells
    for state in ("ready", "pending", "not_ready", "failed", "draining"):
        found = list_workers(api, {"limit": MOST_NAMED, "status": state})
        facts.counts[state] = int(found.get("total", 0))
        if state in ("not_ready", "failed"):
            facts.failing += found["workers"]
    return facts


def examine(facts: Facts) -> list[Finding]:
    """Every finding, in the order in which one would look."""
    return [finding for look in LOOKS for finding in look(facts)]


def _daemon(facts: Facts) -> Iterator[Finding]:
    status = facts.status
    if not facts.ready:
        yield Finding("fail", "daemon", "it is not ready: its store is not loaded, or it does not listen yet")
        return
    uptime = human.duration(status.get("uptime_s"))
    yield Finding("ok", "daemon", f"node {status.get('node')}, version {status.get('version')}, up {uptime}")
    if halted := status.get("halted"):
        yield Finding(
            "fail",
            "own log",
            f"this node has stopped publishing: {halted}",
            "stop the other process, then restart",
        )


def _disk(facts: Facts) -> Iterator[Finding]:
    storage = facts.status.get("storage")
    if not isinstance(storage, dict):
        return
    if storage.get("ok") is False:
        waiting = human.count(int(storage.get("pending") or 0), "key")
        advice = "free space, or mend the disk; writes are kept in memory and tried again"
        yield Finding("fail", "disk", f"writes fail: {storage.get('last_error')}; {waiting} wait", advice)
    else:
        yield Finding("ok", "disk", "writes succeed")


def _mesh(facts: Facts) -> Iterator[Finding]:
    cut_off_s = facts.status.get("cut_off_s")
    if cut_off_s is not None:
        since = human.duration(cut_off_s)
        advice = "look at this machine's network; it forgets nobody meanwhile"
        yield Finding("fail", "links", f"this node takes itself for cut off, since {since}", advice)
    states: dict[str, list[str]] = {}
    for member in facts.members:
        states.setdefault(str(member.get("state")), []).append(str(member.get("name")))
    if names := states.get("suspect"):
        yield Finding("warn", "members", f"suspect: {_named(names)}")
    if names := states.get("down"):
        told = "start it, or `meshctl forget NODE` if it is gone for good"
        yield Finding("fail", "members", f"down: {_named(names)}", told)
    alive = len(states.get("alive", ()))
    if alive == 1 and len(facts.members) == 1:
        advice = "`meshctl join HOST:PORT`, or mesh.join in its configuration, if there should be others"
        yield Finding("warn", "members", "this node is alone", advice)
    else:
        yield Finding("ok", "members", f"{alive} alive")
    groups = facts.partitions.get("groups") or []
    if len(groups) > 1:
        told = "; ".join(_named(group) for group in groups)
        yield Finding(
            "fail", "partitions", f"{len(groups)} groups that are not linked: {told}", "`meshctl partitions`"
        )


def _links(facts: Facts) -> Iterator[Finding]:
    behind = [f"{member.get('name')} ({lag})" for member in facts.members if (lag := lag_of(member))]
    if behind:
        advice = "passes by itself unless it stays; `meshctl converge --wait` waits for it"
        yield Finding("warn", "lag", f"entries are on their way to {_named(behind)}", advice)
    unlinked = [
        str(member.get("name"))
        for member in facts.members
        if member.get("state") == "alive" and member.get("connected") is False and not member.get("self")
    ]
    if unlinked:
        advice = "others relay for it; look at firewalls between the two"
        yield Finding("warn", "links", f"alive, but not connected to this node: {_named(unlinked)}", advice)
    slow = [
        f"{member.get('name')} ({human.milliseconds(rtt)})"
        for member in facts.members
        if isinstance(rtt := member.get("rtt_ms"), int | float) and rtt > SLOW_RTT_MS
    ]
    if slow:
        yield Finding(
            "warn", "links", f"slow: {_named(slow)}", "raise mesh.probe_timeout_s if that is the distance"
        )
    versions = sorted({str(member["version"]) for member in facts.members if member.get("version")})
    if len(versions) > 1:
        yield Finding("warn", "versions", f"nodes run {', '.join(versions)}", "finish the upgrade")


def _store(facts: Facts) -> Iterator[Finding]:
    counts = facts.status.get("counts")
    if not isinstance(counts, dict):
        return
    if foreign := counts.get("foreign"):
        advice = "they have no effect; `meshctl kv ls --tombstones -o wide` shows whose they are"
        yield Finding("warn", "store", f"{foreign} entries written by somebody who may not", advice)
    if unreadable := counts.get("unreadable"):
        advice = "a newer node may have written them: upgrade this one"
        yield Finding("warn", "store", f"{unreadable} values cannot be read", advice)
    yield Finding("ok", "store", f"{counts.get('keys')} keys of {counts.get('owners')} owners")


def _workers(facts: Facts) -> Iterator[Finding]:
    total = sum(facts.counts.values())
    bad = facts.counts.get("not_ready", 0) + facts.counts.get("failed", 0)
    if bad:
        told = [
            f"{worker.get('url')} ({worker.get('last_error') or worker.get('status')})"
            for worker in facts.failing
        ]
        yield Finding(
            "warn", "workers", f"{bad} of {total} do not serve: {_named(told, bad)}", "`meshctl why URL`"
        )
    if total and not facts.counts.get("ready"):
        yield Finding("fail", "workers", f"none of {human.count(total, 'worker')} is ready")
    elif total:
        yield Finding("ok", "workers", f"{facts.counts['ready']} of {total} are ready")
    else:
        yield Finding("warn", "workers", "none is registered", "`meshctl worker add URL`")


def _settings(facts: Facts) -> Iterator[Finding]:
    for row in facts.settings:
        if problem := row.get("problem"):
            advice = f"upgrade this node, or `meshctl config unset {row.get('key')}`"
            yield Finding("warn", "settings", f"{row.get('key')} is left out here: {problem}", advice)


LOOKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _daemon,
    _disk,
    _mesh,
    _links,
    _store,
    _workers,
    _settings,
)


def _named(names: list[str], total: int | None = None) -> str:
    shown = names[:MOST_NAMED]
    more = (len(names) if total is None else total) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


@click.command(cls=MeshCommand)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Look at everything that may be wrong with a node, and say what to do about it.

    Exit code 0 if nothing fails (warnings do not count), 1 if something does.
    """
    session = ctx.ensure_object(Session)
    findings = examine(ask(session.api()))
    failed = any(finding.grade == "fail" for finding in findings)
    data: dict[str, Any] = {"ok": not failed, "findings": [asdict(finding) for finding in findings]}
    session.emit(data, lambda: "\n".join(_line(finding) for finding in findings))
    if failed:
        ctx.exit(Exit.NO)


def _line(finding: Finding) -> str:
    word, colour = MARKS[finding.grade]
    line = f"{click.style(word, fg=colour)}  {finding.about}: {finding.found}"
    return f"{line}\n      {finding.advice}" if finding.advice else line
