"""Commands for running it: check, log-level, version, completion."""

import os
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import get_completion_class

import meshd
from meshd.cli import human
from meshd.cli.client import Api
from meshd.cli.cmd_mesh import lag_of
from meshd.cli.exits import ApiRefused, CliError, Exit, UsageProblem
from meshd.cli.find_worker import list_workers
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session

LEVELS = ("debug", "info", "warning", "error", "critical")
SHELLS = ("bash", "zsh", "fish")
COMPLETE_VARIABLE = "_MESHCTL_COMPLETE"
NAGIOS_CRITICAL = 2


@dataclass(frozen=True)
class Limits:
    """What `check` demands beyond a daemon that is ready; `None` demands nothing."""

    min_members: int | None = None
    min_ready: int | None = None
    max_lag: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The outcome of `check`: what is wrong, if anything, and the figures."""

    problems: list[str]
    figures: dict[str, int]
    node: str


def examine(api: Api, limits: Limits) -> Verdict:
    """Ask the daemon whether it is ready and within the limits; raises `CliError` if it does not answer."""
    problems = []
    try:
        api.get("/readyz")
    except ApiRefused as problem:
        if problem.status != 503:
            raise
        problems.append("not ready: its store is not loaded, or it does not listen yet")
    status = api.get_object("/mesh/status")
    members = api.get_rows("/mesh/members", "members")["members"]
    # Counts only: a list of ten thousand workers is too much for a check that runs every few seconds.
    workers = list_workers(api, {"limit": 1}).get("total", 0)
    ready = api.get_object("/capacity").get("workers_available", 0)
    figures = {
        "members": sum(member.get("state") == "alive" for member in members),
        "workers": workers,
        "ready": ready,
        "lag": max((lag for member in members if (lag := lag_of(member)) is not None), default=0),
    }
    if halted := status.get("halted"):
        problems.append(f"this node has stopped publishing: {halted}")
    storage = status.get("storage")
    if isinstance(storage, dict) and storage.get("ok") is False:
        problems.append(
            f"it cannot write to its disk: {storage.get('last_error') or 'its log has the cause'}"
        )
    if (cut_off_s := status.get("cut_off_s")) is not None:
        problems.append(f"it takes itself for cut off from the mesh, since {human.duration(cut_off_s)}")
    for name, least in (("members", limits.min_members), ("ready", limits.min_ready)):
        if least is not None and figures[name] < least:
            what = "alive members" if name == "members" else "ready workers"
            problems.append(f"{figures[name]} {what}, {least} wanted")
    if limits.max_lag is not None and figures["lag"] > limits.max_lag:
        problems.append(f"a member lacks {figures['lag']} entries, {limits.max_lag} allowed")
    return Verdict(problems, figures, str(status.get("node")))


@click.command(cls=MeshCommand)
@click.option(
    "--min-members", type=click.IntRange(min=1), metavar="N", help="Alive nodes, this one included."
)
@click.option("--min-ready", type=click.IntRange(min=0), metavar="N", help="Ready workers.")
@click.option("--max-lag", type=click.IntRange(min=0), metavar="N", help="Entries that a member may lack.")
@click.option("--nagios", is_flag=True, help="Exit with 2 (CRITICAL) for everything that is not OK.")
@click.pass_context
def check(ctx: click.Context, /, nagios: bool, **limits: int | None) -> None:
    """One line about whether all is well, for monitoring and container health checks.

    Exit code 0 well, 1 not, 3 no daemon, 4 no answer in time.
    """
    session = ctx.ensure_object(Session)
    code: int = Exit.OK
    data: dict[str, Any]
    try:
        verdict = examine(session.api(), Limits(**limits))
    except UsageProblem:
        raise
    except CliError as problem:
        code = problem.exit_code
        data = {"ok": False, "problems": [problem.message]}
        line = f"CRITICAL - {problem.message}"
    else:
        figures = verdict.figures
        data = {"ok": not verdict.problems, "node": verdict.node, "problems": verdict.problems, **figures}
        told = (
            f"node {verdict.node}, {human.count(figures['members'], 'member')} alive, "
            f"{human.count(figures['workers'], 'worker')}, {figures['ready']} ready"
        )
        performance = " ".join(f"{name}={value}" for name, value in figures.items())
        word = "CRITICAL" if verdict.problems else "OK"
        line = f"{word} - {'; '.join([*verdict.problems, told])} | {performance}"
        code = Exit.NO if verdict.problems else Exit.OK
    session.emit(data, lambda: line)
    ctx.exit(NAGIOS_CRITICAL if nagios and code else code)


@click.command("log-level", cls=MeshCommand)
@click.argument("level", type=click.Choice(LEVELS))
@pass_session
def log_level(session: Session, level: str) -> None:
    """Change how much the daemon logs, until it restarts."""
    body = session.api().call("PUT", "/log-level", body={"level": level}).body
    session.emit(body, lambda: f"the daemon logs from {level} up, until it restarts")


@click.command(cls=MeshCommand)
@click.option("--client", is_flag=True, help="Do not ask the daemon.")
@pass_session
def version(session: Session, client: bool) -> None:
    """Print the versions of meshctl and of the daemon, if one answers."""
    data: dict[str, Any] = {"meshctl": meshd.__version__}
    note = ""
    if not client:
        try:
            status = session.api().get_object("/mesh/status")
        except UsageProblem:
            raise
        except CliError as problem:
            data["meshd"] = None
            note = f"meshd    not asked: {problem.message}"
        else:
            data["meshd"] = status.get("version")
            data["node"] = status.get("node")
            note = f"meshd    {human.text(status.get('version'))}  (node {status.get('node')})"
    session.emit(data, lambda: f"meshctl  {meshd.__version__}" + (f"\n{note}" if note else ""))


@click.command(cls=MeshCommand)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print the completion script of a shell; without one, that of $SHELL.

    \b
    bash: meshctl completion bash > ~/.local/share/bash-completion/completions/meshctl
    zsh:  meshctl completion zsh > "${fpath[1]}/_meshctl"
    fish: meshctl completion fish > ~/.config/fish/completions/meshctl.fish
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    found = get_completion_class(name)
    if found is None:
        raise UsageProblem(f"no completion for the shell {name!r}", hint=f"name one of {', '.join(SHELLS)}")
    root = ctx.find_root().command
    click.echo(found(root, {}, "meshctl", COMPLETE_VARIABLE).source())
