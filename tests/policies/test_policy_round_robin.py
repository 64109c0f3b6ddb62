"""Round robin: the turn, and what happens to it when the pool changes."""

import numpy as np
from small_pool import SmallPool, make

from picker.policies.example import example_request, example_rows
from picker.policies.policy import Policy

REQUEST = example_request(prompt_tokens=100)


def walk(policy: Policy, slots: list[float], picks: int) -> list[int]:
    """Slots picked one after the other."""
    rows = example_rows(REQUEST, slots=slots, batch=[0.0] * len(slots))
    walked = []
    for _ in range(picks):
        row = int(policy.score(REQUEST, rows, now=0.0).cost.argmin())
        policy.picked(REQUEST, rows, row, now=0.0)
        walked.append(int(slots[row]))
    return walked


def test_each_endpoint_gets_its_turn() -> None:
    assert walk(make("round-robin"), [0, 1, 2], 7) == [0, 1, 2, 0, 1, 2, 0]


def test_no_two_endpoints_tie() -> None:
    policy = make("round-robin")
    rows = example_rows(REQUEST, slots=[5, 0, 3, 1], batch=[0] * 4)

    for row in range(4):
        policy.picked(REQUEST, rows, row, now=0.0)
        assert len(np.unique(policy.score(REQUEST, rows, now=0.0).cost)) == 4


def test_fallbacks_are_the_next_in_turn() -> None:
    policy = make("round-robin")
    walk(policy, [0, 1, 2, 3], 2)

    cost = policy.score(REQUEST, example_rows(REQUEST, slots=[0, 1, 2, 3], batch=[0] * 4), now=0.0).cost

    assert cost.argsort().tolist() == [2, 3, 0, 1]


def test_a_newcomer_waits_for_its_turn_and_a_leaver_is_skipped() -> None:
    policy = make("round-robin")

    assert walk(policy, [0, 1, 2], 2) == [0, 1]
    assert walk(policy, [0, 1, 2, 3], 3) == [2, 3, 0]
    assert walk(policy, [0, 2, 3], 3) == [2, 3, 0]


def test_a_burst_spreads_evenly() -> None:
    pool, policy = SmallPool(4), make("round-robin")

    for i in range(500):
        pool.pick(policy, REQUEST, now=float(i))

    assert pool.batch.tolist() == [125.0] * 4
