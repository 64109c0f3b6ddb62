"""KV blocks of one engine: identity, and one pool that is free list and prefix cache at once.

As in vLLM v1, a block that nobody uses any more stays matchable until it is handed out again: the free list is the
cache, in LRU order.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import cast

import numpy as np
import xxhash

from picker.simulator.forked_blocks import ForkedBlocks

_CHUNK = 64


def chain_hashes(tokens: Sequence[int], block_size: int, salt: str = "") -> tuple[int, ...]:
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
    """`size` blocks with reference counts. A block is in use (count > 0) or in the LRU, never both.

    Hashes evicted by `take` gather in `evicted` until the caller drains it.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("an engine needs at least one KV block")
        self.size = size
        self.evicted: list[int] = []
        self._lru: OrderedDict[int, None] = OrderedDict.fromkeys(range(size))
        self._uses = [0] * size
        self._hash: list[int | None] = [None] * size
        self._cached: dict[int, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be handed out, cached or not."""
        return len(self._lru)

    @property
    def cached(self) -> int:
        """Blocks that can be matched, in use or not."""
        return len(self._cached)

    def __contains__(self, block_hash: int) -> bool:
        return block_hash in self._cached

    def match(self, hashes: Iterable[int], limit: int) -> list[int]:
        """Blocks that hold the leading `hashes`, at most `limit`, up to the first one missing."""
        blocks: list[int | None] = []
        leading = islice(hashes, limit)
        # A chunk at a time: at the speed of C where much is found, and little in vain where nothing is.
        while chunk := list(map(self._cached.get, islice(leading, _CHUNK))):
            blocks += chunk
            if None in chunk:
                del blocks[blocks.index(None) :]
                break
        return cast(list[int], blocks)

    def unused(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` lie in the LRU now: claiming these lowers `free`."""
        return list(map(self._uses.__getitem__, blocks)).count(0)

    def claim(self, blocks: Iterable[int]) -> None:
        """One more user for each of these matched blocks."""
        uses, lru = self._uses, self._lru
        for block in blocks:
            if not uses[block]:
                del lru[block]
            uses[block] += 1

    def take(self, count: int) -> list[int]:
        """`count` blocks from the cold end, forgetting what they held. The caller has checked `free`."""
        blocks = []
        for _ in range(count):
            block, _none = self._lru.popitem(last=False)
            self._uses[block] = 1
            old = self._hash[block]
            if old is not None:
                self._hash[block] = None
                del self._cached[old]
                self.evicted.append(old)
            blocks.append(block)
        return blocks

    def store(self, block: int, block_hash: int) -> bool:
        """Make a full block matchable. False when another block holds the same content already."""
        if block_hash in self._cached:
            return False
        self._cached[block_hash] = block
        self._hash[block] = block_hash
        return True

    def release(self, blocks: Sequence[int]) -> None:
        """One user less for each, the tail first: a prefix outlives what was built on it."""
        uses, lru = self._uses, self._lru
        for block in reversed(blocks):
            uses[block] = left = uses[block] - 1
            if not left:
                lru[block] = None

    def clear(self) -> bool:
        """Forget all cached content. Refused (False) while any block is in use, as vLLM does."""
        if len(self._lru) < self.size:
            return False
        self._cached.clear()
        self._hash = [None] * self.size
        return True

    def fork(self) -> ForkedBlocks:
        """The same blocks, to be played with; this pool must not change while the fork is in use."""
        return ForkedBlocks(self._lru, len(self._lru), self._uses, self._hash, self._cached)
