"""The approximate index against a plain model: an OrderedDict per slot."""

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.engines.approximate import ApproximateIndex
from picker.engines.recency import DEFAULT_CAPACITY

TTL = 100.0
SLOTS = (0, 1, 64, 130)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def held(index: ApproximateIndex, chain: list[int], now: float, *which: int) -> list[float]:
    return [float(hit) for hit in index.matched(u64(*chain), np.array(which, np.intp), now)]


def test_a_prompt_hits_where_its_prefix_was_sent() -> None:
    index = ApproximateIndex()
    index.touch(1, u64(1, 2, 3), now=0.0)
    assert held(index, [1, 2, 9], 1.0, 0, 1, 2) == [0.0, 2.0, 0.0]


def test_blocks_expire_unless_they_are_used_again() -> None:
    index = ApproximateIndex(ttl_s=TTL)
    index.touch(0, u64(1, 2, 3, 4, 5), now=0.0)
    index.touch(0, u64(1, 2), now=60.0)
    assert held(index, [1, 2, 3, 4, 5], 100.0, 0) == [5.0]
    assert held(index, [1, 2, 3, 4, 5], 101.0, 0) == [2.0]
    assert held(index, [1, 2, 3, 4, 5], 161.0, 0) == [0.0]


def test_a_full_endpoint_gives_up_the_longest_unused_tails_first() -> None:
    index = ApproximateIndex()
    index.set_capacity(0, 4)
    index.touch(0, u64(1, 2, 3), now=0.0)
    index.touch(0, u64(1, 12), now=1.0)
    assert held(index, [1, 2, 3], 1.0, 0) == [3.0]
    index.touch(0, u64(21), now=2.0)
    assert (held(index, [1, 2, 3], 2.0, 0), held(index, [1, 12], 2.0, 0)) == ([2.0], [2.0])


def test_a_prompt_longer_than_the_cache_leaves_its_leading_blocks() -> None:
    index = ApproximateIndex()
    index.set_capacity(0, 3)
    index.touch(0, u64(1, 2, 3, 4, 5), now=0.0)
    assert held(index, [1, 2, 3, 4, 5], 0.0, 0) == [3.0]


def test_a_smaller_capacity_drops_the_oldest_blocks_at_once() -> None:
    index = ApproximateIndex()
    index.touch(0, u64(1, 2, 3, 4), now=0.0)
    index.set_capacity(0, 2)
    assert (held(index, [1, 2, 3], 0.0, 0), len(index)) == ([2.0], 2)


def test_a_cleared_slot_holds_nothing_and_has_the_default_capacity() -> None:
    index = ApproximateIndex()
    index.set_capacity(0, 2)
    index.touch(0, u64(1, 2), now=0.0)
    index.touch(1, u64(1, 2), now=0.0)
    index.clear(0)
    assert (held(index, [1, 2], 0.0, 0, 1), len(index)) == ([0.0, 2.0], 2)
    many = np.arange(DEFAULT_CAPACITY + 10, dtype=np.uint64)
    index.touch(0, many, now=0.0)
    assert index.matched(many, np.array([0]), 0.0).tolist() == [float(DEFAULT_CAPACITY)]


def test_an_index_may_have_room_for_a_single_block() -> None:
    index = ApproximateIndex(max_blocks=1)
    index.touch(0, u64(1, 2), now=0.0)
    assert held(index, [1, 2], 0.0, 0) == [1.0]


def test_a_full_index_lets_a_slot_replace_only_its_own_blocks() -> None:
    index = ApproximateIndex(max_blocks=4)
    index.touch(0, u64(1, 2, 3, 4), now=0.0)
    index.touch(1, u64(1, 2), now=1.0)
    index.touch(0, u64(9), now=2.0)
    assert (held(index, [1, 2, 3, 4], 2.0, 0, 1), held(index, [9], 2.0, 0)) == ([3.0, 0.0], [1.0])
    assert (index.refused, len(index)) == (2, 4)


def test_a_clock_that_goes_back_stands_still() -> None:
    index = ApproximateIndex(ttl_s=TTL)
    index.touch(0, u64(1), now=1000.0)
    index.touch(0, u64(2), now=0.0)
    assert (held(index, [1], 0.0, 0), held(index, [2], 1050.0, 0)) == ([1.0], [1.0])


def test_expired_blocks_are_reclaimed_as_others_come() -> None:
    index = ApproximateIndex(ttl_s=TTL)
    for i in range(200):
        index.touch(0, np.arange(10 * i, 10 * i + 10, dtype=np.uint64), now=10.0 * i)
    assert len(index) <= 120


def test_the_index_warms_up_without_a_trace() -> None:
    index = ApproximateIndex()
    index.warm()
    assert len(index) == 0


@pytest.mark.parametrize("slot", [-1, 1 << 20])
def test_a_slot_out_of_range_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        ApproximateIndex().touch(slot, u64(1), 0.0)


@pytest.mark.parametrize(("ttl_s", "max_blocks"), [(0.0, 9), (float("nan"), 9), (TTL, 0)])
def test_limits_that_are_not_positive_are_refused(ttl_s: float, max_blocks: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        ApproximateIndex(ttl_s, max_blocks)


class Model:
    """What the index promises, slot by slot: block -> time of last use, oldest first."""

    def __init__(self) -> None:
        self.slots = {slot: OrderedDict[int, float]() for slot in SLOTS}
        self.capacity = dict.fromkeys(SLOTS, DEFAULT_CAPACITY)

    def touch(self, slot: int, chain: list[int], now: float) -> None:
        mine = self.slots[slot]
        for block in reversed(chain[: self.capacity[slot]]):
            mine[block] = now
            mine.move_to_end(block)
            if len(mine) > self.capacity[slot]:
                mine.popitem(last=False)

    def set_capacity(self, slot: int, blocks: int) -> None:
        self.capacity[slot] = blocks
        while len(self.slots[slot]) > blocks:
            self.slots[slot].popitem(last=False)

    def clear(self, slot: int) -> None:
        self.slots[slot].clear()
        self.capacity[slot] = DEFAULT_CAPACITY

    def matched(self, chain: list[int], slot: int, now: float) -> float:
        depth = 0
        while depth < len(chain) and self.slots[slot].get(chain[depth], -1e9) >= now - TTL:
            depth += 1
        return float(depth)


def chain_of(path: list[int], blocks: int = 1) -> list[int]:
    """Chained block identities of a path in a tree, so many for each step: equal prefixes, and only those, share
    them."""
    chain, node = [], 1
    for step in path:
        node = 3 * node + step
        chain += [100 * node + i for i in range(blocks)]
    return chain


paths = st.lists(st.integers(0, 2), max_size=9)
steps = st.one_of(
    st.tuples(st.just("touch"), st.sampled_from(SLOTS), paths),
    st.tuples(st.just("capacity"), st.sampled_from(SLOTS), st.integers(1, 12) | st.integers(1, 150)),
    st.tuples(st.just("clear"), st.sampled_from(SLOTS), st.none()),
    st.tuples(st.just("look"), st.none(), paths),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), steps), max_size=60), st.sampled_from((1, 7, 16)))
def test_it_is_an_lru_list_with_age_per_slot(
    history: list[tuple[int, tuple[str, Any, Any]]], blocks_a_step: int
) -> None:
    index, model, now = ApproximateIndex(ttl_s=TTL), Model(), 0.0
    for wait, (what, slot, argument) in history:
        now += wait
        if what == "touch":
            index.touch(slot, u64(*chain_of(argument, blocks_a_step)), now)
            model.touch(slot, chain_of(argument, blocks_a_step), now)
        elif what == "capacity":
            index.set_capacity(slot, argument)
            model.set_capacity(slot, argument)
        elif what == "clear":
            index.clear(slot)
            model.clear(slot)
        else:
            chain = chain_of(argument, blocks_a_step)
            assert held(index, chain, now, *SLOTS) == [model.matched(chain, s, now) for s in SLOTS]
    for path in ([0, 0, 0], [1, 2, 0], [2, 2, 2, 2]):
        chain = chain_of(path, blocks_a_step)
        assert held(index, chain, now, *SLOTS) == [model.matched(chain, s, now) for s in SLOTS]
