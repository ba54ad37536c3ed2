"""Open files: the usual soft limit of 1,024 is less than what the bounds on connections allow."""

from __future__ import annotations

import resource
from typing import Final

OPEN_FILES: Final = 65_536
"""More than all bounds on connections, checks and dials together."""


def raise_open_files(wanted: int = OPEN_FILES) -> int:
    """Raise this process's soft limit on open files towards `wanted`, as far as its hard one lets it.

    Returns the limit in force, which is never lower than before.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if reachable <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):  # some systems allow less than their hard limit says
        return soft
    return reachable
