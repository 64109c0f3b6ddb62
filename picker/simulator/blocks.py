"""KV blocks of one engine: identity, and one pool that is free list and prefix cache at once.

As in vLLM v1, a block that nobody uses any more stays matchable until it is handed out again: the free list is the
cache, in LRU order. Everything about a block lies in arrays, which compiled kernels walk and a fork copies.
"""

from collections.abc import Sequence as Items
from copy import copy
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.engines.linear_hashing import Int, kernel

Blocks = NDArray[np.int32]
"""Numbers of blocks, shape (n,)."""
Hashes = NDArray[np.uint64]
"""What blocks hold, shape (n,)."""

_NEWER, _OLDER, _USES, _FOLLOWING = 0, 1, 2, 3
_NOTHING = -1


def chain_hashes(tokens: Items[int], block_size: int, salt: str = "") -> tuple[int, ...]:
    """Identity of each full block of `block_size` tokens: 64-bit hashes, each over its tokens and all before it.

    `salt` parts otherwise equal prompts (vLLM's cache_salt). Token ids must lie in 0..2**32-1.
    """
    packed = np.asarray(tokens, dtype=np.uint32).tobytes()
    width = block_size * 4
    parent = xxhash.xxh3_64_intdigest(salt.encode()) if salt else 0
    hashes = []
    for end in range(width, len(packed) + 1, width):
        parent = xxhash.xxh3_64_intdigest(packed[end - width : end], seed=parent)
        hashes.append(parent)
    return tuple(hashes)


class _Pool(NamedTuple):
    """What the kernels work on."""

    links: NDArray[np.int32]
    """Per block, and in one row more for the two ends of the LRU: the next warmer and the next colder block there, its
    users, and what follows it in its bucket (block + 1, 0 at the end, _NOTHING where it holds nothing)."""
    hashes: Hashes
    """Per block: what it holds, if anything."""
    heads: NDArray[np.int32]
    """Per bucket of hashes, a power of two of them: first block + 1, or 0."""


class BlockPool:
    """`size` blocks with reference counts. A block is in use (count > 0) or in the LRU, never both."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("an engine needs at least one KV block")
        self.size = size
        self.free = size
        """Blocks that can be handed out, cached or not."""
        self._pool = _Pool(
            np.zeros((size + 1, 4), np.int32),
            np.zeros(size, np.uint64),
            np.zeros(1 << size.bit_length(), np.int32),
        )
        links, ring = self._pool.links, np.arange(size + 1)
        links[:, _NEWER] = (ring + 1) % (size + 1)
        links[:, _OLDER] = (ring - 1) % (size + 1)
        links[:, _FOLLOWING] = _NOTHING

    @property
    def cached(self) -> int:
        """Blocks that can be matched, in use or not."""
        return int(np.count_nonzero(self._pool.links[:-1, _FOLLOWING] != _NOTHING))

    def __contains__(self, block_hash: int) -> bool:
        return bool(_find(self._pool, np.uint64(block_hash)) >= 0)

    def match(self, hashes: Items[int] | Hashes, limit: int) -> Blocks:
        """Blocks that hold the leading `hashes`, at most `limit`, up to the first one missing."""
        blocks: Blocks = _match(self._pool, np.asarray(hashes, np.uint64), limit)
        return blocks

    def unused(self, blocks: Blocks) -> int:
        """How many of `blocks` lie in the LRU now: claiming these lowers `free`."""
        return int(np.count_nonzero(self._pool.links[blocks, _USES] == 0))

    def claim(self, blocks: Blocks) -> None:
        """One more user for each of these matched blocks."""
        self.free -= _claim(self._pool, blocks)

    def take(self, count: int) -> tuple[Blocks, Hashes, Blocks]:
        """`count` blocks from the cold end; what they held, and the positions of those that held something. The
        caller has checked `free`."""
        self.free -= count
        taken: tuple[Blocks, Hashes, Blocks] = _take(self._pool, count)
        return taken

    def store(self, blocks: Blocks, hashes: Hashes) -> NDArray[np.bool_]:
        """Make full blocks matchable. False for each whose content another block holds already."""
        new: NDArray[np.bool_] = _store(self._pool, blocks, hashes)
        return new

    def release(self, blocks: Blocks) -> None:
        """One user less for each, the tail first: a prefix outlives what was built on it."""
        self.free += _release(self._pool, blocks)

    def clear(self) -> bool:
        """Forget all cached content. Refused (False) while any block is in use, as vLLM does."""
        if self.free < self.size:
            return False
        self._pool.links[:, _FOLLOWING] = _NOTHING
        self._pool.heads[:] = 0
        return True

    def fork(self) -> "BlockPool":
        """The same blocks, to be played with."""
        other = copy(self)
        links, hashes, heads = self._pool
        other._pool = _Pool(links.copy(), hashes.copy(), heads.copy())
        return other


@kernel
def _bucket(pool: _Pool, block_hash: np.uint64) -> np.int64:
    """Fibonacci hashing, since block ids follow on one another."""
    return np.int64((block_hash * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(pool.heads) - 1)


@kernel
def _find(pool: _Pool, block_hash: np.uint64) -> np.int64:
    """The block that holds this, or -1."""
    block = np.int64(pool.heads[_bucket(pool, block_hash)]) - 1
    while block >= 0 and pool.hashes[block] != block_hash:
        block = np.int64(pool.links[block, _FOLLOWING]) - 1
    return block


@kernel
def _match(pool: _Pool, hashes: Hashes, limit: int) -> Blocks:
    blocks = np.empty(min(limit, len(hashes)), np.int32)
    for i in range(len(blocks)):
        block = _find(pool, hashes[i])
        if block < 0:
            return blocks[:i]
        blocks[i] = block
    return blocks


@kernel
def _claim(pool: _Pool, blocks: Blocks) -> int:
    links, before = pool.links, 0
    for block in blocks:
        if links[block, _USES] == 0:
            _unlink(links, block)
            before += 1
        links[block, _USES] += 1
    return before


@kernel
def _take(pool: _Pool, count: int) -> tuple[Blocks, Hashes, Blocks]:
    links, ends = pool.links, len(pool.hashes)
    blocks, gone, at = np.empty(count, np.int32), np.empty(count, np.uint64), np.empty(count, np.int32)
    held = 0
    for i in range(count):
        block = links[ends, _NEWER]
        _unlink(links, block)
        links[block, _USES] = 1
        blocks[i] = block
        if links[block, _FOLLOWING] != _NOTHING:
            _forget(pool, block)
            gone[held], at[held] = pool.hashes[block], i
            held += 1
    return blocks, gone[:held], at[:held]


@kernel
def _store(pool: _Pool, blocks: Blocks, hashes: Hashes) -> NDArray[np.bool_]:
    new = np.empty(len(blocks), np.bool_)
    for i in range(len(blocks)):
        new[i] = _find(pool, hashes[i]) < 0
        if new[i]:
            bucket = _bucket(pool, hashes[i])
            pool.hashes[blocks[i]] = hashes[i]
            pool.links[blocks[i], _FOLLOWING] = pool.heads[bucket]
            pool.heads[bucket] = blocks[i] + 1
    return new


@kernel
def _release(pool: _Pool, blocks: Blocks) -> int:
    links, ends = pool.links, len(pool.hashes)
    freed = 0
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        links[block, _USES] -= 1
        if links[block, _USES] == 0:
            warmest = links[ends, _OLDER]
            links[block, _OLDER], links[block, _NEWER] = warmest, ends
            links[warmest, _NEWER] = links[ends, _OLDER] = block
            freed += 1
    return freed


@kernel
def _unlink(links: NDArray[np.int32], block: Int) -> None:
    newer, older = links[block, _NEWER], links[block, _OLDER]
    links[newer, _OLDER] = older
    links[older, _NEWER] = newer


@kernel
def _forget(pool: _Pool, block: Int) -> None:
    """The block holds nothing any more."""
    links, heads = pool.links, pool.heads
    bucket = _bucket(pool, pool.hashes[block])
    at = np.int64(heads[bucket]) - 1
    if at == block:
        heads[bucket] = links[block, _FOLLOWING]
    else:
        while links[at, _FOLLOWING] != block + 1:
            at = np.int64(links[at, _FOLLOWING]) - 1
        links[at, _FOLLOWING] = links[block, _FOLLOWING]
    links[block, _FOLLOWING] = _NOTHING
