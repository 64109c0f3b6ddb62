"""Identity of KV blocks, and the pool that is free list and cache at once."""

from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.blocks import BlockPool, chain_hashes

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


def test_released_blocks_stay_matchable_until_handed_out_again() -> None:
    pool = BlockPool(4)
    blocks = pool.take(2)
    for block, name in zip(blocks, (10, 11), strict=True):
        assert pool.store(block, name)
    pool.release(blocks)
    assert pool.free == 4
    assert pool.match([10, 11, 12], limit=3) == blocks
    pool.take(3)
    assert pool.match([10, 11], limit=2) == blocks[:1]


def test_the_tail_of_a_chain_is_evicted_before_its_head() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3)
    for block, name in zip(blocks, (1, 2, 3), strict=True):
        pool.store(block, name)
    pool.release(blocks)
    pool.take(2)
    assert pool.evicted == [3, 2]
    assert 1 in pool


def test_a_claimed_block_is_not_evicted() -> None:
    pool = BlockPool(2)
    (block,) = pool.take(1)
    pool.store(block, 7)
    pool.release([block])
    pool.claim(pool.match([7], limit=1))
    assert pool.take(1) != [block]
    assert pool.free == 0
    assert 7 in pool


def test_equal_content_is_cached_once() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    assert pool.store(first, 5)
    assert not pool.store(second, 5)
    assert pool.match([5], limit=1) == [first]


def test_clearing_is_refused_while_a_block_is_in_use() -> None:
    pool = BlockPool(2)
    blocks = pool.take(1)
    pool.store(blocks[0], 5)
    assert not pool.clear()
    pool.release(blocks)
    assert pool.clear()
    assert 5 not in pool
