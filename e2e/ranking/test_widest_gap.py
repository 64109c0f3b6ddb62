"""The short form: the two policies that are furthest apart, the first seconds of the workload, one run each."""

import pytest
from ranking import ranked, simulated, through_envoy

POLICIES = ("random", "multiplicative")
REQUESTS = 48
SEED = 0


@pytest.mark.timeout(300)
async def test_real_envoy_and_the_simulator_agree_on_the_widest_gap() -> None:
    model = {policy: simulated(policy, SEED, REQUESTS) for policy in POLICIES}
    real = {policy: await through_envoy(policy, SEED, REQUESTS) for policy in POLICIES}

    assert ranked(real) == ranked(model)
