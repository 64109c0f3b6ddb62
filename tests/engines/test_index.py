"""The prefix index against a plain model: dicts of dicts."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from picker.engines import index as module
from picker.engines.index import PrefixIndex

SLOTS = (0, 1, 2, 63, 64, 65, 200)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def slots(*values: int) -> np.ndarray:
    return np.array(values, np.intp)


def held(index: PrefixIndex, chain: list[int], *which: int) -> list[float]:
    return [float(hit) for hit in index.matched(u64(*chain), slots(*which))]


def test_a_hit_is_the_leading_run_of_blocks_that_an_endpoint_holds() -> None:
    index = PrefixIndex()
    index.store(0, u64(11, 12, 13), u64(1, 2, 3))
    index.store(1, u64(11, 13), u64(1, 3))
    assert held(index, [1, 2, 3, 4], 0, 1, 2) == [3.0, 1.0, 0.0]
    assert held(index, [2, 3], 0, 1, 0) == [2.0, 0.0, 2.0]
    assert held(index, [], 0, 1) == [0.0, 0.0]
    assert index.matched(u64(1), slots()).shape == (0,)


def test_a_block_that_the_engine_holds_twice_takes_two_removals() -> None:
    index = PrefixIndex()
    index.store(0, u64(11), u64(1))
    index.store(0, u64(11), u64(1))
    assert len(index) == 1
    index.remove(0, u64(11))
    assert held(index, [1], 0) == [1.0]
    index.remove(0, u64(11))
    assert (held(index, [1], 0), len(index)) == ([0.0], 0)


def test_a_block_known_by_two_keys_survives_the_removal_of_either() -> None:
    index = PrefixIndex()
    index.store(0, u64(11, 21, 31), u64(1, 1, 1))
    index.remove(0, u64(21, 31))
    assert (held(index, [1], 0), len(index)) == ([1.0], 1)
    index.remove(0, u64(11))
    assert (held(index, [1], 0), len(index)) == ([0.0], 0)


def test_a_key_that_comes_to_mean_another_block_means_only_that() -> None:
    index = PrefixIndex()
    index.store(0, u64(11), u64(1))
    index.store(0, u64(11), u64(2))
    assert (held(index, [1], 0), held(index, [2], 0), index.block(0, 11)) == ([0.0], [1.0], 2)


def test_keys_of_one_engine_mean_nothing_on_another() -> None:
    index = PrefixIndex()
    index.store(0, u64(11), u64(1))
    index.remove(1, u64(11))
    assert (index.block(0, 11), index.block(1, 11), held(index, [1], 0)) == (1, None, [1.0])


def test_a_cleared_slot_starts_anew_and_leaves_the_others_alone() -> None:
    index = PrefixIndex()
    for slot in (0, 1):
        index.store(slot, u64(11, 12), u64(1, 2))
    index.clear(0)
    index.store(0, u64(12), u64(2))
    assert (held(index, [1, 2], 0, 1), held(index, [2], 0), len(index)) == ([0.0, 2.0], [1.0], 3)


def test_memory_of_cleared_slots_is_used_again() -> None:
    index = PrefixIndex()
    many = np.arange(1000, dtype=np.uint64)
    for _ in range(100):
        index.store(0, many, many)
        index.clear(0)
    index.store(0, many, many)
    assert len(index) == 1000
    assert index.nbytes < 47 * 1000 * 20


def test_retired_slots_do_not_gather_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RETIRED", 3)
    monkeypatch.setattr(module, "_SWEEP_PER_CLEAR", 0)
    monkeypatch.setattr(module, "_SWEEP_PER_BLOCK", 0)
    index = PrefixIndex()
    for slot in range(100):
        index.store(slot, u64(11, 12), u64(1, 2))
        index.clear(slot)
    assert (len(index), index.nbytes < 47 * 20) == (0, True)


def test_a_full_index_gives_up_its_oldest_pairs_and_counts_them() -> None:
    index = PrefixIndex(max_pairs=10)
    for block in range(1, 26):
        index.store(0, u64(100 + block), u64(block))
    assert (len(index), index.evicted) == (10, 15)
    assert [held(index, [block], 0)[0] for block in range(1, 26)] == [0.0] * 15 + [1.0] * 10


def test_a_batch_larger_than_a_full_index_does_not_break_it() -> None:
    index = PrefixIndex(max_pairs=1)
    index.store(0, u64(1, 2, 3), u64(7, 7, 8))
    assert (len(index), held(index, [8], 0), held(index, [7], 0)) == (1, [1.0], [0.0])


def test_a_read_only_chain_is_as_good_as_any() -> None:
    index = PrefixIndex()
    index.store(0, np.frombuffer(u64(11).tobytes(), np.uint64), np.frombuffer(u64(1).tobytes(), np.uint64))
    assert index.matched(np.frombuffer(u64(1).tobytes(), np.uint64), slots(0)).tolist() == [1.0]


def test_slots_never_heard_of_hold_nothing() -> None:
    index = PrefixIndex()
    index.store(0, u64(11), u64(1))
    assert held(index, [1], 5_000, -1, 0) == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("slot", [-1, 1 << 20])
def test_a_slot_out_of_range_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        PrefixIndex().store(slot, u64(1), u64(1))


def test_keys_without_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="2 keys for 1 blocks"):
        PrefixIndex().store(0, u64(1, 2), u64(1))


def test_the_index_warms_up_without_a_trace() -> None:
    index = PrefixIndex()
    index.warm()
    assert len(index) == 0


class IndexIsAModel(RuleBasedStateMachine):
    """Blocks 0..19 under keys 0..29, so that keys collide, blocks are shared and rows are reused all the time."""

    @initialize()
    def start(self) -> None:
        self.index = PrefixIndex()
        self.model: dict[int, dict[int, tuple[int, int]]] = {slot: {} for slot in SLOTS}

    @rule(
        slot=st.sampled_from(SLOTS),
        pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 19)), max_size=12),
    )
    def store(self, slot: int, pairs: list[tuple[int, int]]) -> None:
        self.index.store(slot, u64(*(key for key, _ in pairs)), u64(*(block for _, block in pairs)))
        mine = self.model[slot]
        for key, block in pairs:
            copies = mine[key][1] if key in mine and mine[key][0] == block else 0
            mine[key] = (block, copies + 1)

    @rule(slot=st.sampled_from(SLOTS), first=st.integers(100, 2000), count=st.integers(1, 400))
    def store_many(self, slot: int, first: int, count: int) -> None:
        self.store(slot, [(i, i) for i in range(first, first + count)])

    @rule(slot=st.sampled_from(SLOTS), first=st.integers(100, 2000), count=st.integers(1, 400))
    def remove_many(self, slot: int, first: int, count: int) -> None:
        self.remove(slot, list(range(first, first + count)))

    @rule(slot=st.sampled_from(SLOTS), keys=st.lists(st.integers(0, 34), max_size=12))
    def remove(self, slot: int, keys: list[int]) -> None:
        self.index.remove(slot, u64(*keys))
        mine = self.model[slot]
        for key in keys:
            block, copies = mine.pop(key, (0, 0))
            if copies > 1:
                mine[key] = (block, copies - 1)

    @rule(slot=st.sampled_from(SLOTS))
    def clear(self, slot: int) -> None:
        self.index.clear(slot)
        self.model[slot] = {}

    @rule(chain=st.lists(st.integers(0, 19), max_size=8), which=st.lists(st.sampled_from(SLOTS), max_size=9))
    def match(self, chain: list[int], which: list[int]) -> None:
        assert self.index.matched(u64(*chain), slots(*which)).tolist() == [self.expected(chain, s) for s in which]

    @invariant()
    def same_pairs(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == sum(map(len, self.model.values()))
            for slot, mine in self.model.items():
                assert {key: self.index.block(slot, key) for key in range(30)} == {
                    key: mine[key][0] if key in mine else None for key in range(30)
                }
            for block in range(20):
                assert held(self.index, [block], *SLOTS) == [self.expected([block], slot) for slot in SLOTS]

    def expected(self, chain: list[int], slot: int) -> float:
        blocks = {block for block, _ in self.model[slot].values()}
        depth = 0
        while depth < len(chain) and chain[depth] in blocks:
            depth += 1
        return float(depth)


IndexIsAModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestIndexIsAModel = IndexIsAModel.TestCase
