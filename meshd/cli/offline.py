"""A daemon, or the files of one that is not running: which of the two a command reads.

Rules: a running daemon is always asked rather than its files; reading files is said on stderr. What
reads them is imported only then, so that talking to a daemon stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshd.cli.client import Api
from meshd.cli.exits import Unreachable
from meshd.cli.session import Session

if TYPE_CHECKING:
    from meshd.cli.offline_store import OfflineStore


def online_or(
    session: Session, online: Callable[[Api], None], offline: Callable[[OfflineStore], None]
) -> None:
    """Ask the daemon; where `--data-dir` names the directory of one that does not run, read its files."""
    api = session.api()
    if session.addrs or session.data_dir is None:
        online(api)
        return
    try:
        api.connect()
    except Unreachable:
        from meshd.cli.offline_store import OfflineStore

        store = OfflineStore(session.data_dir, session.clock.wall())
        session.say(f"no daemon runs on {session.data_dir}: reading its files as it left them")
        for problem in store.problems:
            session.say(problem)
        offline(store)
    else:
        online(api)
