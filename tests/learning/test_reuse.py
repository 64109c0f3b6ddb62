"""How likely a block is to be asked for again, by how long nobody has asked."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.learning import reuse as module
from picker.learning.reuse import FORGET_USES, SAMPLED, Reuse
from picker.requests.request import Chain


def prompt(number: int, blocks: int = 640) -> Chain:
    """A prompt of its own; one block in 64 of it is watched."""
    return np.uint64(number * 1_000_000) + np.arange(blocks, dtype=np.uint64)


def chance(reuse: Reuse, *ages: float) -> list[float]:
    return [float(chance) for chance in reuse.chance(np.array(ages))]


def test_before_anything_was_asked_for_nothing_is_expected() -> None:
    assert chance(Reuse(), 0.0, 10.0, 1e9) == [0.0, 0.0, 0.0]


def test_prompts_that_never_come_again_leave_nothing_to_expect() -> None:
    reuse = Reuse()
    for i in range(200):
        reuse.asked(prompt(i), float(i))
    assert chance(reuse, 1.0, 100.0) == [0.0, 0.0]


def test_a_prompt_that_comes_every_ten_seconds_is_expected_until_then_and_not_after() -> None:
    reuse = Reuse()
    for i in range(500):
        reuse.asked(prompt(1), 10.0 * i)
    young, old = chance(reuse, 5.0, 60.0)
    assert young > 0.95
    assert old == 0.0


def test_the_share_that_comes_again_is_found() -> None:
    """Three prompts in ten come again after 20 s, once each."""
    reuse, rng, again = Reuse(), np.random.default_rng(0), list[tuple[float, int]]()
    for i in range(3000):
        while again and again[0][0] <= i:
            reuse.asked(prompt(again.pop(0)[1]), float(i))
        reuse.asked(prompt(i), float(i))
        if rng.random() < 0.3:
            again.append((i + 20.0, i))
    young, old = chance(reuse, 1.0, 40.0)
    assert young == pytest.approx(0.3 / 1.3, abs=0.03), "of 13 uses 3 are followed by another"
    assert old == 0.0


def test_blocks_that_were_left_alone_for_longer_than_most_are_told_from_the_young_ones() -> None:
    """Half of the prompts come again after 2 s, a fifth after 200 s: who has waited for 20 s waits for the latter."""
    reuse, rng, again = Reuse(), np.random.default_rng(0), list[tuple[float, int]]()
    for i in range(3000):
        due = [entry for entry in again if entry[0] <= i]
        for at, number in due:
            reuse.asked(prompt(number), at)
        again = [entry for entry in again if entry[0] > i]
        reuse.asked(prompt(i), float(i))
        draw = rng.random()
        if draw < 0.7:
            again.append((i + (2.0 if draw < 0.5 else 200.0), i))
    young, middle, old = chance(reuse, 0.6, 20.0, 500.0)
    assert young == pytest.approx(0.7 / 1.7, abs=0.04)
    assert middle == pytest.approx(0.2 / 1.2, abs=0.03)
    assert old == 0.0


def test_what_used_to_come_again_and_does_no_more_is_forgotten() -> None:
    reuse = Reuse()
    for i in range(300):
        reuse.asked(prompt(1), 10.0 * i)
    before = chance(reuse, 1.0)[0]
    per_prompt = len(prompt(0)) // int(SAMPLED)
    for i in range(3 * FORGET_USES // per_prompt):
        reuse.asked(prompt(i + 2), 3000.0 + i)
    assert chance(reuse, 1.0)[0] < 0.1 * before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BLOCKS", 100)
    reuse, sizes = Reuse(), []
    for i in range(100):
        reuse.asked(prompt(i), float(i))
        sizes.append(len(pickle.dumps(reuse)))
    assert sizes[-1] <= 1.05 * sizes[20]
    reuse.asked(prompt(99), 100.0)
    assert chance(reuse, 0.6)[0] > 0.0, "the latest are those that are kept"


def test_short_prompts_may_have_no_block_that_is_watched() -> None:
    reuse = Reuse()
    reuse.asked(np.array([1, 2, 3], np.uint64), 0.0)
    assert chance(reuse, 1.0) == [0.0]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e5)), max_size=60),
    st.lists(st.floats(0, 1e9), min_size=2, max_size=2),
)
def test_it_is_a_probability(uses: list[tuple[int, float]], ages: list[float]) -> None:
    reuse, now = Reuse(), 0.0
    for number, gap in uses:
        now += gap
        reuse.asked(prompt(number, 200), now)
    assert all(0.0 <= share <= 1.0 for share in chance(reuse, *ages, 0.0, np.inf))
