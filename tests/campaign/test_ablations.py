"""Each rule is needed: without it the campaign fails within the number of seeds that the ablation states."""

from __future__ import annotations

import pytest

from tests.campaign.ablations import ABLATIONS, HASHES_ALONE, Ablation
from tests.campaign.plan import run_seed
from tests.campaign.test_explorer import WITHOUT

pytestmark = pytest.mark.slow


def first_failure(ablation: Ablation) -> int | None:
    with ablation.off():
        for seed in range(ablation.within):
            if run_seed(seed, ablation.profile).error:
                return seed
    return None


@pytest.mark.parametrize(
    "ablation", [one for one in ABLATIONS if one.within], ids=lambda ablation: ablation.name
)
def test_without_this_rule_the_campaign_fails(ablation: Ablation) -> None:
    assert first_failure(ablation) is not None


def test_without_hashes_alone_the_worlds_in_which_other_rules_are_shown_hold() -> None:
    with HASHES_ALONE.off():
        for seed in range(15):
            for profile in ("plain", "torn"):
                assert not run_seed(seed, profile).error


def test_every_rule_is_shown_by_the_campaign_the_explorer_or_a_story() -> None:
    assert {one.name for one in ABLATIONS if not one.within} <= {*WITHOUT, "cut"}
    assert WITHOUT.keys() <= {one.name for one in ABLATIONS}
