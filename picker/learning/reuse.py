"""How likely a cached block is to be asked for again, by how long nobody has: learned from a sample of the blocks asked
for.

A block is sampled by its hash, so that all its uses are seen. Each use is watched until the next use of the same block:
the times between are ages at reuse. With U uses watched and R(a) of them reused at an age above a,

    chance(a) = R(a) / (U - reuses at an age up to a)

is the share of blocks untouched for a that are asked for again. Uses are forgotten exponentially, by count.
"""

import math
from bisect import bisect_left
from collections import OrderedDict

import numpy as np

from picker.engines.kernels import bare
from picker.engines.linear_hashing import plain
from picker.engines.rows import Column
from picker.requests.request import Chain

SAMPLED = 64
"""One block in so many is watched; a power of two."""
_LOW_BITS = np.uint64(SAMPLED - 1)
MOST_BLOCKS = 50_000
FORGET_USES = 20_000
"""Uses after which older ones have lost 63 % of their weight."""
LONGEST_S = 3600.0
EDGES = np.geomspace(0.5, LONGEST_S, 40)
"""Seconds."""
_EDGES = EDGES.tolist()


class Reuse:
    """Ages at reuse in a histogram over the logarithm of time, 0.5 s to an hour."""

    def __init__(self) -> None:
        self._last: OrderedDict[int, float] = OrderedDict()
        self._reused = np.zeros(len(EDGES) + 1)
        self._uses = 0.0
        self.chances = np.zeros(len(EDGES) + 1)
        """Of blocks as old as each edge, and older than all; may exceed 1 by a little. Replaced, not changed."""

    def asked(self, chain: Chain, now: float) -> None:
        """A prompt of these blocks was picked for."""
        found = np.empty(len(chain), np.uint64)
        count = _watched(plain(chain), found)
        if not count:
            return
        sampled = found[:count].tolist()
        keep = math.exp(-len(sampled) / FORGET_USES)
        self._reused *= keep
        self._uses = self._uses * keep + len(sampled)
        for block in sampled:
            before = self._last.pop(block, None)
            self._last[block] = now
            if before is not None:
                self._reused[bisect_left(_EDGES, now - before)] += 1.0
        while len(self._last) > MOST_BLOCKS:
            self._last.popitem(last=False)
        self.chances = np.empty(len(EDGES) + 1)
        _chances(self._reused, self._uses, self.chances)

    def chance(self, age_s: Column) -> Column:
        """Chance of a block that nobody has asked for in so many seconds to be asked for again, shape of `age_s`."""
        found: Column = np.minimum(1.0, self.chances[np.searchsorted(EDGES, age_s)])
        return found


@bare
def _watched(chain: Chain, found: Chain) -> int:
    """Writes the blocks that are sampled into `found`, (chain,); how many."""
    count = 0
    for block in chain:
        if block & _LOW_BITS == 0:
            found[count] = block
            count += 1
    return count


@bare
def _chances(reused: Column, uses: float, chances: Column) -> None:
    """By age, from reuses at each age and uses watched."""
    later = 0.0
    for age in range(len(reused) - 1, -1, -1):
        later += reused[age]
        chances[age] = later
    for age in range(len(reused)):
        chances[age] /= max(uses - (later - chances[age]), 1.0)


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    _chances(np.zeros(1), 0.0, np.zeros(1))
    _watched(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
