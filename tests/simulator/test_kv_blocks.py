"""Identity of KV blocks, and the pool that is free list and cache at once."""

from collections import OrderedDict, defaultdict
from itertools import takewhile

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.blocks import BlockPool, Blocks, Hashes, chain_hashes

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40)


@given(TOKENS, TOKENS, TOKENS, st.integers(1, 8))
def test_hashes_agree_exactly_as_far_as_the_prefixes_do(
    shared: list[int], left: list[int], right: list[int], size: int
) -> None:
    a, b = shared + left, shared + right
    hashes_a, hashes_b = chain_hashes(a, size), chain_hashes(b, size)
    assert len(hashes_a) == len(a) // size
    for i, (x, y) in enumerate(zip(hashes_a, hashes_b, strict=False)):
        assert (x == y) == (a[: (i + 1) * size] == b[: (i + 1) * size])


def test_a_salt_parts_equal_prompts() -> None:
    assert not set(chain_hashes(range(64), 16)) & set(chain_hashes(range(64), 16, "tenant"))


def named(*hashes: int) -> Hashes:
    return np.array(hashes, np.uint64)


def holding(size: int, *hashes: int) -> tuple[BlockPool, Blocks]:
    """A pool of `size` blocks, and as many of them in use as there are hashes, holding these."""
    pool = BlockPool(size)
    blocks, _ = taken(pool, len(hashes))
    pool.store(blocks, named(*hashes))
    return pool, blocks


def taken(pool: BlockPool, count: int) -> tuple[Blocks, list[int]]:
    """Blocks from the cold end, and what they held."""
    blocks: Blocks = np.zeros(count, np.int32)
    gone, at = pool.take(blocks)
    assert len(at) == len(gone)
    return blocks, gone.tolist()


def test_released_blocks_stay_matchable_until_handed_out_again() -> None:
    pool, blocks = holding(4, 10, 11)
    pool.release(blocks)
    assert pool.free == 4
    assert pool.match(named(10, 11, 12), limit=3).tolist() == blocks.tolist()
    taken(pool, 3)
    assert pool.match(named(10, 11), limit=2).tolist() == blocks[:1].tolist()


def test_the_tail_of_a_chain_is_evicted_before_its_head() -> None:
    pool, blocks = holding(4, 1, 2, 3)
    pool.release(blocks)
    gone, at = pool.take(np.zeros(3, np.int32))
    assert (gone.tolist(), at.tolist()) == ([3, 2], [1, 2])
    assert 1 in pool


def test_a_claimed_block_is_not_evicted() -> None:
    pool, blocks = holding(2, 7)
    pool.release(blocks)
    pool.claim(pool.match(named(7), limit=1))
    assert taken(pool, 1)[0].tolist() != blocks.tolist()
    assert pool.free == 0
    assert 7 in pool


def test_of_copies_the_one_stored_first_is_matched_and_the_others_outlive_it() -> None:
    pool, copies = holding(4, 5, 5, 5)
    pool.release(copies[:1])
    assert pool.match(named(5), limit=1).tolist() == copies[:1].tolist()
    assert taken(pool, 2)[1] == [5]
    assert pool.match(named(5), limit=1).tolist() == copies[1:2].tolist()
    assert pool.cached == 2


def test_a_block_that_holds_nothing_is_handed_out_before_any_that_does() -> None:
    pool, held = holding(3, 5, 6)
    empty, _ = taken(pool, 1)
    pool.release(held)
    pool.release(empty)
    assert taken(pool, 1) == (empty.tolist(), [])
    assert taken(pool, 1)[1] == [6]


def test_clearing_is_refused_while_a_block_is_in_use() -> None:
    pool, blocks = holding(2, 5)
    assert not pool.clear()
    pool.release(blocks)
    assert pool.clear()
    assert 5 not in pool


class Plain:
    """The same pool with a dictionary for each thing that it knows."""

    def __init__(self, size: int) -> None:
        self.lru: OrderedDict[int, None] = OrderedDict.fromkeys(range(size))
        self.uses = [0] * size
        self.hash: dict[int, int] = {}
        self.copies: dict[int, list[int]] = defaultdict(list)

    def match(self, hashes: list[int]) -> list[int]:
        known = list(takewhile(self.copies.get, hashes))
        return [self.copies[block_hash][0] for block_hash in known]

    def claim(self, blocks: list[int]) -> None:
        for block in blocks:
            self.lru.pop(block, None)
            self.uses[block] += 1

    def take(self, count: int) -> tuple[list[int], list[int]]:
        blocks = [self.lru.popitem(last=False)[0] for _ in range(count)]
        for block in blocks:
            self.uses[block] = 1
            if block in self.hash:
                self.copies[self.hash[block]].remove(block)
        return blocks, [self.hash.pop(block) for block in blocks if block in self.hash]

    def store(self, blocks: list[int], hashes: list[int]) -> None:
        for block, block_hash in zip(blocks, hashes, strict=True):
            self.hash[block] = block_hash
            self.copies[block_hash].append(block)

    def release(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            self.uses[block] -= 1
            if not self.uses[block]:
                self.lru[block] = None
                if block not in self.hash:
                    self.lru.move_to_end(block, last=False)


SIZE = 12
ASKS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 7)), max_size=60)


@given(ASKS, st.integers(0, 60))
def test_blocks_are_matched_taken_and_given_back_as_in_dictionaries(
    asks: list[tuple[bool, int, int]], forks_at: int
) -> None:
    pool, plain = BlockPool(SIZE), Plain(SIZE)
    held: list[Blocks] = []
    for number, (gives, family, count) in enumerate(asks):
        if number == forks_at:
            original, before = pool, everything(pool)
            pool = pool.fork()
        hashes = [100 * family + i for i in range(count)]
        # The last block is filled anew, as in an engine, and so gets copies; that of one family is left half full.
        hits = pool.match(named(*hashes), count - 1)
        assert hits.tolist() == plain.match(hashes[:-1])
        assert pool.unused(hits) == sum(block in plain.lru for block in hits.tolist())
        if gives and held:
            blocks = held.pop(family % len(held))
            pool.release(blocks)
            plain.release(blocks.tolist())
        elif count - len(hits) + pool.unused(hits) <= pool.free:
            pool.claim(hits)
            plain.claim(hits.tolist())
            fresh, gone = taken(pool, count - len(hits))
            assert (fresh.tolist(), gone) == plain.take(count - len(hits))
            held.append(np.concatenate((hits, fresh)))
            full = len(fresh) - (family == 3)
            pool.store(fresh[:full], named(*hashes[len(hits) :][:full]))
            plain.store(fresh[:full].tolist(), hashes[len(hits) :][:full])
        assert (pool.free, pool.cached) == (len(plain.lru), len(plain.hash))
    if forks_at < len(asks):
        assert everything(original) == before


def everything(pool: BlockPool) -> tuple[int, int, object]:
    """What a pool can be asked."""
    spare = pool.fork()
    blocks, gone = taken(spare, spare.free)
    return pool.free, pool.cached, (blocks.tolist(), gone)
