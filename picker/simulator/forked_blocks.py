"""The KV blocks of an engine as they would go on, over a pool that stays as it is.

A fork is read at once and thrown away, so it copies only the reference counts, which is one run of memory; hashes and
free blocks are read through from the pool below, and what differs is kept beside it. While a fork is in use the pool
below must not change.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import filterfalse, islice

_CHUNK = 64


class ForkedBlocks:
    """As `BlockPool`, block for block; whatever is done here leaves the pool below untouched."""

    def __init__(
        self, lru: Iterable[int], free: int, uses: Sequence[int], held: Sequence[int | None], cached: Mapping[int, int]
    ) -> None:
        """`lru` holds the `free` unused blocks, coldest first; `uses` and `held` are user count and hash by block, and
        `cached` is the block of each hash."""
        self.size = len(uses)
        self.free = free
        """Blocks that can be handed out, cached or not."""
        self.evicted: list[int] = []
        self._moved: set[int] = set()
        """Blocks of `lru` that were claimed here: they lie there no more."""
        self._cold = filterfalse(self._moved.__contains__, lru)
        self._warm: OrderedDict[int, None] = OrderedDict()
        """Blocks released here: all of them warmer than the cold ones."""
        self._uses = list(uses)
        self._held = held
        self._held_now: dict[int, int | None] = {}
        self._cached = cached
        self._cached_now: dict[int, int | None] = {}

    def match(self, hashes: Iterable[int], limit: int) -> list[int]:
        """Blocks that hold the leading `hashes`, at most `limit`, up to the first one missing."""
        blocks: list[int] = []
        leading = islice(hashes, limit)
        while chunk := list(islice(leading, _CHUNK)):
            found = list(map(self._cached_now.get, chunk, map(self._cached.get, chunk)))
            present = [block for block in found if block is not None]
            if len(present) < len(found):
                return blocks + present[: found.index(None)]
            blocks += present
        return blocks

    def unused(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` nobody uses."""
        return list(map(self._uses.__getitem__, blocks)).count(0)

    def claim(self, blocks: Iterable[int]) -> None:
        """One more user for each of these matched blocks."""
        uses, warm = self._uses, self._warm
        for block in blocks:
            if not uses[block]:
                self.free -= 1
                if block in warm:
                    del warm[block]
                else:
                    self._moved.add(block)
            uses[block] += 1

    def take(self, count: int) -> list[int]:
        """`count` blocks from the cold end, forgetting what they held. The caller has checked `free`."""
        blocks = list(islice(self._cold, count))
        blocks += [self._warm.popitem(last=False)[0] for _ in range(count - len(blocks))]
        self.free -= count
        for block in blocks:
            self._uses[block] = 1
        held = map(self._held_now.get, blocks, map(self._held.__getitem__, blocks))
        gone = [block_hash for block_hash in held if block_hash is not None]
        self._held_now.update(dict.fromkeys(blocks))
        self._cached_now.update(dict.fromkeys(gone))
        self.evicted += gone
        return blocks

    def store(self, block: int, block_hash: int) -> bool:
        """Make a full block matchable. False when another block holds the same content already."""
        now = self._cached_now
        if now.get(block_hash, self._cached.get(block_hash)) is not None:
            return False
        now[block_hash] = block
        self._held_now[block] = block_hash
        return True

    def release(self, blocks: Sequence[int]) -> None:
        """One user less for each, the tail first."""
        uses, warm = self._uses, self._warm
        before = len(warm)
        for block in reversed(blocks):
            uses[block] = left = uses[block] - 1
            if not left:
                warm[block] = None
        self.free += len(warm) - before

    def clear(self) -> bool:
        """Forget all cached content. Refused (False) while any block is in use."""
        if self.free < self.size:
            return False
        self._held, self._cached = [None] * self.size, {}
        self._held_now, self._cached_now = {}, {}
        return True
