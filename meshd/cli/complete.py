"""What the shell may offer for an argument: workers and members that the daemon knows.

Rule: completion is a courtesy. It never waits longer than a moment and never complains; a daemon
that does not answer means that nothing is offered.
"""

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from meshd.cli.client import Api
from meshd.cli.exits import CliError
from meshd.cli.find_worker import list_workers
from meshd.cli.session import Session

MOMENT_S = 1.0
MOST = 200
"""More than a person reads; also what is asked of the daemon."""


def offer(ctx: click.Context, fetch: Callable[[Api], list[CompletionItem]]) -> list[CompletionItem]:
    """What `fetch` finds at the daemon within a moment, else nothing."""
    session = ctx.find_object(Session) or Session()
    session.timeout_s = MOMENT_S
    with ctx.scope(cleanup=False):  # click completes outside of any current context
        try:
            api = session.api()
        except CliError:
            return []
    try:
        return fetch(api)
    except CliError:
        return []
    finally:
        api.close()


def worker_ids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids that begin so, each with its URL. (URLs are not offered: shells split words at colons.)"""

    def fetch(api: Api) -> list[CompletionItem]:
        # A first character is needed to narrow ten thousand workers down; the daemon does not filter by id.
        limit = None if incomplete else MOST
        found = list_workers(api, {"limit": limit})["workers"]
        fitting = [info for info in found if str(info["id"]).startswith(incomplete.lower())]
        return [CompletionItem(str(info["id"]), help=str(info.get("url"))) for info in fitting[:MOST]]

    return offer(ctx, fetch)


def member_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of nodes that begin so, each with its state."""

    def fetch(api: Api) -> list[CompletionItem]:
        members = api.get_rows("/mesh/members", "members")["members"]
        return [
            CompletionItem(str(member["name"]), help=str(member.get("state")))
            for member in members
            if str(member["name"]).startswith(incomplete)
        ]

    return offer(ctx, fetch)
