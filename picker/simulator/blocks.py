"""KV blocks of one engine: identity, and one pool that is free list and prefix cache at once.

As in vLLM v1, a block that nobody uses any more stays matchable until it is handed out again: the free list is the
cache, in LRU order. Everything about a block lies in arrays, which compiled kernels walk and a fork copies.
"""

from collections.abc import Sequence as Items
from copy import copy

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.engines.kernels import bare
from picker.engines.linear_hashing import Int

Blocks = NDArray[np.int32]
"""Numbers of blocks, shape (n,)."""
Hashes = NDArray[np.uint64]
"""What blocks hold, shape (n,)."""
Links = NDArray[np.int32]
"""Shape (blocks + 1, 4)."""

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


class BlockPool:
    """`size` blocks with reference counts. A block is in use (count > 0) or in the LRU, never both."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("an engine needs at least one KV block")
        self.size = size
        self.free = size
        """Blocks that can be handed out, cached or not."""
        # Per block, and in one row more for the two ends of the LRU: the next warmer and the next colder block there,
        # its users, and what follows it in its bucket (block + 1, 0 at the end, _NOTHING where it holds nothing).
        self._links = np.zeros((size + 1, 4), np.int32)
        # Per block: what it holds, if anything.
        self._hashes = np.zeros(size, np.uint64)
        # Per bucket of hashes, a power of two of them: first block + 1, or 0.
        self._heads = np.zeros(1 << size.bit_length(), np.int32)
        ring = np.arange(size + 1)
        self._links[:, _NEWER] = (ring + 1) % (size + 1)
        self._links[:, _OLDER] = (ring - 1) % (size + 1)
        self._links[:, _FOLLOWING] = _NOTHING

    @property
    def cached(self) -> int:
        """Blocks that hold something, in use or not, each copy counted."""
        return int(np.count_nonzero(self._links[:-1, _FOLLOWING] != _NOTHING))

    def __contains__(self, block_hash: int) -> bool:
        return len(self.match((block_hash,), 1)) == 1

    def match(self, hashes: Items[int] | Hashes, limit: int) -> Blocks:
        """Blocks that hold the leading `hashes`, at most `limit`, up to the first one missing."""
        wanted = np.asarray(hashes, np.uint64)
        blocks: Blocks = np.empty(min(limit, len(wanted)), np.int32)
        return blocks[: _match(self._links, self._hashes, self._heads, wanted, blocks)]

    def unused(self, blocks: Blocks) -> int:
        """How many of `blocks` lie in the LRU now: claiming these lowers `free`."""
        return _unused(self._links, blocks)

    def claim(self, blocks: Blocks) -> None:
        """One more user for each of these matched blocks."""
        self.free -= _claim(self._links, blocks)

    def take(self, blocks: Blocks) -> tuple[Hashes, Blocks]:
        """Fill `blocks` with blocks from the cold end. Gives what they held, and the positions of those that held
        something. The caller has checked `free`."""
        count = len(blocks)
        self.free -= count
        gone, at = np.empty(count, np.uint64), np.empty(count, np.int32)
        held = _take(self._links, self._hashes, self._heads, blocks, gone, at)
        return gone[:held], at[:held]

    def store(self, blocks: Blocks, hashes: Hashes) -> None:
        """Make full blocks matchable. Of blocks with equal content the one stored first is matched."""
        _store(self._links, self._hashes, self._heads, blocks, hashes)

    def release(self, blocks: Blocks) -> None:
        """One user less for each, the tail first: a prefix outlives what was built on it. Blocks that hold nothing
        are handed out next."""
        self.free += _release(self._links, blocks)

    def clear(self) -> bool:
        """Forget all cached content. Refused (False) while any block is in use, as vLLM does."""
        if self.free < self.size:
            return False
        self._links[:, _FOLLOWING] = _NOTHING
        self._heads[:] = 0
        return True

    def fork(self) -> "BlockPool":
        """The same blocks, to be played with."""
        other = copy(self)
        other._links, other._hashes, other._heads = self._links.copy(), self._hashes.copy(), self._heads.copy()
        return other


# Arrays come one by one and results go into arrays of the caller: a tuple on the way in or an array on the way out
# costs as much as the kernel itself.


@bare
def _bucket(heads: Blocks, block_hash: np.uint64) -> np.int64:
    """Fibonacci hashing, since block ids follow on one another."""
    return np.int64((block_hash * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (len(heads) - 1)


@bare
def _find(links: Links, hashes: Hashes, heads: Blocks, block_hash: np.uint64) -> np.int64:
    """The block that holds this, or -1."""
    block = np.int64(heads[_bucket(heads, block_hash)]) - 1
    while block >= 0 and hashes[block] != block_hash:
        block = np.int64(links[block, _FOLLOWING]) - 1
    return block


@bare
def _match(links: Links, hashes: Hashes, heads: Blocks, wanted: Hashes, blocks: Blocks) -> int:
    for i in range(len(blocks)):
        block = _find(links, hashes, heads, wanted[i])
        if block < 0:
            return i
        blocks[i] = block
    return len(blocks)


@bare
def _unused(links: Links, blocks: Blocks) -> int:
    unused = 0
    for block in blocks:
        unused += links[block, _USES] == 0
    return unused


@bare
def _claim(links: Links, blocks: Blocks) -> int:
    """How many of them nobody used."""
    before = 0
    for block in blocks:
        if links[block, _USES] == 0:
            _unlink(links, block)
            before += 1
        links[block, _USES] += 1
    return before


@bare
def _take(links: Links, hashes: Hashes, heads: Blocks, blocks: Blocks, gone: Hashes, at: Blocks) -> int:
    """How many of them held something."""
    ends = len(hashes)
    held = 0
    for i in range(len(blocks)):
        block = links[ends, _NEWER]
        _unlink(links, block)
        links[block, _USES] = 1
        blocks[i] = block
        if links[block, _FOLLOWING] != _NOTHING:
            _forget(links, hashes, heads, block)
            gone[held], at[held] = hashes[block], i
            held += 1
    return held


@bare
def _store(links: Links, hashes: Hashes, heads: Blocks, blocks: Blocks, new: Hashes) -> None:
    for i in range(len(blocks)):
        block, bucket = blocks[i], _bucket(heads, new[i])
        hashes[block] = new[i]
        links[block, _FOLLOWING] = 0
        last = np.int64(heads[bucket]) - 1
        if last < 0:
            heads[bucket] = block + 1
        else:
            while links[last, _FOLLOWING]:
                last = np.int64(links[last, _FOLLOWING]) - 1
            links[last, _FOLLOWING] = block + 1


@bare
def _release(links: Links, blocks: Blocks) -> int:
    """How many of them nobody uses any more."""
    ends = len(links) - 1
    freed = 0
    for i in range(len(blocks) - 1, -1, -1):
        block = blocks[i]
        links[block, _USES] -= 1
        if links[block, _USES] == 0:
            older = ends if links[block, _FOLLOWING] == _NOTHING else links[ends, _OLDER]
            newer = links[older, _NEWER]
            links[block, _OLDER], links[block, _NEWER] = older, newer
            links[older, _NEWER] = links[newer, _OLDER] = block
            freed += 1
    return freed


@bare
def _unlink(links: Links, block: Int) -> None:
    newer, older = links[block, _NEWER], links[block, _OLDER]
    links[newer, _OLDER] = older
    links[older, _NEWER] = newer


@bare
def _forget(links: Links, hashes: Hashes, heads: Blocks, block: Int) -> None:
    """The block holds nothing any more."""
    bucket = _bucket(heads, hashes[block])
    at = np.int64(heads[bucket]) - 1
    if at == block:
        heads[bucket] = links[block, _FOLLOWING]
    else:
        while links[at, _FOLLOWING] != block + 1:
            at = np.int64(links[at, _FOLLOWING]) - 1
        links[at, _FOLLOWING] = links[block, _FOLLOWING]
    links[block, _FOLLOWING] = _NOTHING
