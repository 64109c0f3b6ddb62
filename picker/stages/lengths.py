"""How long requests are: traffic by length on a logarithmic grid, and how far two mixes are apart.

All numbers are sums over requests, so that the traffic of any range of lengths is a difference of two prefix sums.
"""

import math
from bisect import bisect_right
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHORTEST, LONGEST, PER_OCTAVE = 128, 1 << 20, 4
CHUNK_TOKENS = 2048
"""Prefill is done in chunks of so many tokens."""

(
    ARRIVALS,  # requests placed by this length
    PROMPTS,  # their prompt tokens
    NEW,  # of these not cached
    WORK,  # attention of these, token pairs
    HISTORY,  # context computed before, summed over their chunks
    CHUNKS,  # steps that prefill
    NEW_NEW,  # second moments of new tokens and work, for the wait in line
    NEW_WORK,
    WORK_WORK,
    TOKENS,  # tokens decoded at this length
    CONTEXT,  # context of each of these, summed
    CROSSINGS,  # answers that grow past the lower edge while they decode
    REUSED,  # cached tokens of requests that a boundary at the lower edge would part from them
    REUSED_WORK,
) = range(14)
COLUMNS = 14


def grid(longest: int = LONGEST) -> Floats:
    """Edges in tokens, shape (B,): 0, then PER_OCTAVE per doubling from SHORTEST to `longest`. The last bucket is open.

    Every PER_OCTAVE-th edge from the second on is a power of two. Raises ValueError for a `longest` below SHORTEST.
    """
    if longest < SHORTEST:
        raise ValueError(f"the longest context must be at least {SHORTEST} tokens")
    octaves = math.ceil(math.log2(longest / SHORTEST))
    return np.concatenate(([0.0], np.round(SHORTEST * 2.0 ** (np.arange(octaves * PER_OCTAVE) / PER_OCTAVE))))


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """Rates per second by length: `columns` has shape (COLUMNS, B), `edges` (B,)."""

    edges: Floats
    columns: Floats
    requests: float = math.inf
    """How many requests it was learned from, with their present weight."""

    def times(self, factor: float) -> "Traffic":
        """The same mix, so many times as dense."""
        return Traffic(self.edges, self.columns * factor, self.requests)

    @property
    def tokens_per_s(self) -> float:
        return float(self.columns[TOKENS].sum())


def sums_of(
    edges: list[float], prompt: float, new: float, output: float, place: float | None
) -> list[tuple[int, int, float]]:
    """What one request adds, as (column, bucket, amount). `place` is the length it stays with, None where it moves on
    as it grows."""
    new = min(max(new, 1.0), max(prompt, 1.0))
    work, chunks = new * (prompt - new / 2), math.ceil(new / CHUNK_TOKENS)
    cached = prompt - new
    history = chunks * cached + CHUNK_TOKENS * chunks * (chunks - 1) / 2
    at = bisect_right(edges, prompt if place is None else place) - 1
    parts = [1.0, prompt, new, work, history, chunks, new * new, new * work, work * work]
    added = [(column, at, part) for column, part in enumerate(parts)]
    for edge in range(bisect_right(edges, cached), at + 1):
        added += [(REUSED, edge, cached), (REUSED_WORK, edge, cached * cached / 2)]
    if place is not None:
        return [*added, (TOKENS, at, output), (CONTEXT, at, output * (prompt + output / 2))]
    begin, end = prompt, prompt + output
    while begin < end:
        upto = min(end, edges[at + 1]) if at + 1 < len(edges) else end
        added += [(TOKENS, at, upto - begin), (CONTEXT, at, (upto - begin) * (begin + upto) / 2)]
        begin, at = upto, at + 1
        if begin < end:
            added.append((CROSSINGS, at, 1.0))
    return added


class Lengths:
    """Requests seen, fading: a window of `memory_s` on the mean. Kept in FOLDS parts, dealt in turn, so that a plan can
    be held against traffic of the same kind that differs by chance."""

    FOLDS = 4

    def __init__(self, longest: int = LONGEST, memory_s: float = 120.0) -> None:
        """Raises ValueError unless `memory_s` is above 0 and `longest` a context."""
        if not memory_s > 0:
            raise ValueError("memory_s must be above 0")
        self.edges = grid(longest)
        self._edges: list[float] = self.edges.tolist()
        self._sums = np.zeros((self.FOLDS, COLUMNS, len(self.edges)))
        self._memory_s = memory_s
        self._faded_at: float | None = None
        self._weight_s = 0.0
        self._seen = 0

    def add(self, prompt: float, new: float, output: float, place: float | None = None) -> None:
        """A request ended: prompt, uncached part of it, and answer in tokens; numbers that are none are left out."""
        if not all(0 <= amount < math.inf for amount in (prompt, new, output, place or 0.0)):
            return
        prompt, output = min(prompt, 1e9), min(output, 1e9)
        fold = self._sums[self._seen % self.FOLDS]
        self._seen += 1
        for column, bucket, amount in sums_of(self._edges, prompt, new, output, place):
            fold[column, bucket] += amount

    def fade(self, now: float) -> None:
        """Time has come to `now`, in seconds; call it about once a second, before the requests that ended since."""
        if self._faded_at is not None and now > self._faded_at:
            keep = math.exp((self._faded_at - now) / self._memory_s)
            self._sums *= keep
            # The integral of what a request weighs since then: a rate is a sum over it.
            self._weight_s = self._weight_s * keep + self._memory_s * (1.0 - keep)
        self._faded_at = now if self._faded_at is None else max(now, self._faded_at)

    def copy(self) -> "Lengths":
        """As it is now, for a plan that takes its time."""
        other = copy(self)
        other._sums = self._sums.copy()
        return other

    def traffic(self) -> Traffic:
        """All that is remembered."""
        return self._rates(self._sums.sum(axis=0), 1.0)

    def folds(self) -> tuple[Traffic, ...]:
        """The same traffic as each part of the requests tells it."""
        return tuple(self._rates(sums, float(self.FOLDS)) for sums in self._sums)

    def _rates(self, sums: Floats, part: float) -> Traffic:
        return Traffic(self.edges, part * sums / max(self._weight_s, 1e-3), float(sums[ARRIVALS].sum()))


def drift(before: Traffic, now: Traffic) -> float:
    """How unlike two kinds of traffic on one grid are, 0 to 1: the largest of the shares of decoded and of prefilled
    tokens that are at other lengths (total variation over octaves), and of the decoded tokens that came or went."""
    apart = [_variation(before.columns[which], now.columns[which]) for which in (TOKENS, NEW)]
    least, most = sorted((before.tokens_per_s, now.tokens_per_s))
    return max(*apart, 1.0 - least / most if most > 0 else 0.0)


def _variation(one: Floats, other: Floats) -> float:
    octaves = np.concatenate(([0], np.arange(1, len(one), PER_OCTAVE)))
    shares = [np.add.reduceat(column, octaves) / max(float(column.sum()), 1e-12) for column in (one, other)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
