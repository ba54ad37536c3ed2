"""Random lives of whole meshes. `python -m tests.campaign --seeds N` runs as many as one likes."""

from __future__ import annotations

import pytest

from tests.campaign.plan import PROFILES, run_seed

pytestmark = pytest.mark.slow

SEEDS = 20
"""Per profile. Together with the other tests of this room they stay within a minute."""


@pytest.mark.req("CRD-1", "CRD-2", "CRD-4", "CRD-6", "MSH-4")
@pytest.mark.parametrize("profile", PROFILES)
def test_whatever_befalls_a_mesh_it_ends_in_agreement_on_what_is_right(profile: str) -> None:
    for seed in range(SEEDS):
        outcome = run_seed(seed, profile)
        assert not outcome.error, f"seed {seed}: {outcome.error}\n" + "\n".join(outcome.trace)


@pytest.mark.req("SIM-1")
def test_a_seed_leads_to_the_same_life_every_time() -> None:
    for seed in (4, 7):
        first, second = run_seed(seed), run_seed(seed)
        assert first == second
        assert first.messages > 100


def test_the_faults_that_the_proof_rests_on_do_happen() -> None:
    told: set[str] = set()
    for seed in range(12):
        for profile in ("lost", "resumed"):
            told |= run_seed(seed, profile).events.keys()
    assert {"own_log_recovered", "own_log_new_gen", "own_log_reused", "owner_forgotten", "cut_off"} <= told
