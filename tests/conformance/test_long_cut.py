"""A node that cannot reach a worker for long takes it back by itself. Begins with the run, and ends it."""

from __future__ import annotations

import pytest

from tests.support.conformance import LongCut
from tests.support.processes import eventually

ONE_PAUSE_S = 90.0
"""A failed import is asked once a minute, with some jitter."""


@pytest.mark.req("LIF-3", "LIF-5", "SYN-5")
def test_an_import_that_failed_in_a_cut_comes_back_by_itself_when_the_cut_is_over(long_cut: LongCut) -> None:
    eventually(
        lambda: long_cut.checker.status(long_cut.url) == "ready",
        "the import is ready again without anybody's doing",
        timeout_s=ONE_PAUSE_S,
        every_s=0.2,
    )
    assert long_cut.checker.worker(long_cut.url)["origin"] == "mesh"
    assert long_cut.owner.worker(long_cut.url)["revision"] == 1
