"""Small worlds, walked through whole; and rules whose absence shows there."""

from __future__ import annotations

import pytest

from tests.campaign.ablations import ABLATIONS
from tests.campaign.explorer import PRELUDES, Explorer, Scope
from tests.campaign.oracle import Violation

pytestmark = pytest.mark.slow

WITHOUT = {
    "floor": Scope(),
    "contiguity": Scope(keys=2, depth=4, prelude="delta under way"),
    "gen bump": Scope(),
    "nonce": Scope(prelude="held"),
    "fence": Scope(),
    "fence of any nonce": Scope(),
    "lineage": Scope(),
    "dots": Scope(),
    "line": Scope(prelude="lost late"),
    "removals": Scope(prelude="held"),
    "merging": Scope(),
    "monotone": Scope(),
}


@pytest.mark.req("CRD-1", "CRD-4", "CRD-6")
@pytest.mark.parametrize("prelude", PRELUDES)
def test_nothing_that_two_nodes_can_live_through_in_five_steps_breaks_a_rule(prelude: str) -> None:
    explorer = Explorer(Scope(depth=5, prelude=prelude))
    assert explorer.run() > 1000
    assert explorer.healed > 200


@pytest.mark.req("CRD-1", "CRD-4", "CRD-6")
def test_nor_with_two_keys() -> None:
    assert Explorer(Scope(keys=2, depth=4, prelude="held")).run() > 1000


@pytest.mark.req("CRD-1", "CRD-4", "CRD-6")
def test_nor_what_three_nodes_can_live_through_in_four_steps() -> None:
    assert Explorer(Scope(nodes=3, depth=4, prelude="held")).run() > 1000


@pytest.mark.req("CRD-4")
def test_a_machine_that_goes_on_from_an_image_ends_in_agreement() -> None:
    assert Explorer(Scope(depth=5, prelude="held", resume=True)).run() > 1000


@pytest.mark.parametrize("name", WITHOUT)
def test_without_a_rule_the_same_walk_finds_what_it_prevents(name: str) -> None:
    ablation = next(one for one in ABLATIONS if one.name == name)
    with ablation.off(), pytest.raises(Violation):
        Explorer(WITHOUT[name]).run()


def test_a_walk_visits_each_state_once_and_the_same_ones_every_time() -> None:
    first, second = Explorer(Scope(depth=4)), Explorer(Scope(depth=4))
    assert first.run() == second.run()
    assert first.steps == second.steps > first.visited
