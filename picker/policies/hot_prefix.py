"""When a shared prefix draws more traffic than its holders can carry.

A product of prefill and batch keeps a hot prefix on its holders as long as their batch grows slower than the others'
prefill. That fails only where the prefix's share of traffic exceeds its holders' share of the pool. With x the share of
recent picks that belong to a class, M the endpoints holding its prefix and M' the others:

- **alarm**: x / (1 - x) > |M| / |M'|;
- **drop**: once 2 x |M| picks of the class in a row cost less on a holder than on any other endpoint, while holders are
  the busier ones by mean batch, the class goes to the others only;
- **exit**: when the alarm is false at a pick of the class. Each dropped pick makes one more holder, so |M| / |M'| rises
  until it reaches x / (1 - x); or the share falls as the window slides. A new drop needs its 2 x |M| picks again.

Where the paper is silent we chose: the window is the last 60 s or 8,192 picks, whichever is shorter; there is no alarm
before 4 picks per endpoint; a pick belongs to a class when the best hit is over half of its prompt, and the class is
the prefix of the largest power-of-two number of blocks within that hit, so that requests that share a system prompt and
then differ by a few blocks stay together. Prefixes that go on to differ for long (a system prompt with long, different
continuations) fall into several classes, each with its own smaller share.

Source: LMetric (arXiv 2603.15202), the two-phase detector; "busier" is that paper's own condition, measured.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import bare
from picker.engines.rows import Column, Rows
from picker.requests.request import Request

Mask = NDArray[np.bool_]

MAX_PICKS = 8192
_PICKS_PER_ENDPOINT = 4
_HIGH_HIT = 0.5
_FORGET_PER_PICK = 32


class Prefix(NamedTuple):
    """What a request shares with those of its class: its key, None for a request without a long hit anywhere."""

    key: int | None
    depth_tokens: float
    """Who has as many of its tokens holds the prefix."""


@dataclass(slots=True)
class _Class:
    """One prefix class inside the window."""

    count: int = 0
    streak: int = 0
    dropped: bool = False


class HotPrefixes:
    """The classes of recent picks: at most 8,192 picks and as many classes, no endpoint identity."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._picks: deque[tuple[float, int | None]] = deque()
        self._classes: dict[int, _Class] = {}

    def dropped(self, prefix: Prefix, rows: Rows, now: float) -> Mask | None:
        """The endpoints to leave out for such a request, shape (N,), never all of them; None where there are none."""
        key, depth_tokens = prefix
        record = self._classes.get(key) if key is not None else None
        if record is None or not record.dropped or now - self._picks[-1][0] > self._window_s:
            return None
        hot: Mask = rows.hit_tokens >= depth_tokens
        return hot if self._alarmed(record, int(np.count_nonzero(hot)), len(hot)) else None

    def picked(self, prefix: Prefix, rows: Rows, cost: Column, now: float) -> None:
        """Such a request was placed; `cost`, shape (N,), is what every endpoint would have cost it, nothing dropped."""
        key, depth_tokens = prefix
        self._remember(key, now)
        if key is None:
            return
        record = self._classes[key]
        holders, wins = _held(rows.hit_tokens, depth_tokens, cost, rows.batch)
        if not self._alarmed(record, holders, len(rows)):
            record.streak, record.dropped = 0, False
            return
        record.streak = record.streak + 1 if wins else 0
        if record.streak >= 2 * holders:
            record.dropped = True

    def _alarmed(self, record: _Class, holders: int, n: int) -> bool:
        total = len(self._picks)
        if total < min(_PICKS_PER_ENDPOINT * n, MAX_PICKS) or not holders:
            return False
        # x / (1 - x) > |M| / |M'|, multiplied out.
        return record.count * (n - holders) > (total - record.count) * holders

    def _remember(self, key: int | None, now: float) -> None:
        self._picks.append((now, key))
        if key is not None:
            self._classes.setdefault(key, _Class()).count += 1
        # A few old picks per new one, so that no single pick pays for a burst that ends.
        for _ in range(_FORGET_PER_PICK):
            at, old = self._picks[0]
            if len(self._picks) <= MAX_PICKS and now - at <= self._window_s:
                break
            self._picks.popleft()
            if old is not None:
                record = self._classes[old]
                record.count -= 1
                if not record.count:
                    del self._classes[old]


@bare
def _held(hit_tokens: Column, depth_tokens: float, cost: Column, batch: Column) -> tuple[int, bool]:
    """How many endpoints hold the prefix; and whether they alone cost least while their mean batch is the larger."""
    holders, inside, outside, least, alone = 0, 0.0, 0.0, np.inf, True
    for i in range(len(cost)):
        hot = hit_tokens[i] >= depth_tokens
        if hot:
            holders, inside = holders + 1, inside + batch[i]
        else:
            outside += batch[i]
        if cost[i] < least:
            least, alone = cost[i], hot
        elif cost[i] == least:
            alone = alone and hot
    others = len(cost) - holders
    return holders, alone and holders > 0 and others > 0 and inside / holders > outside / others


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    _held(np.zeros(1), 0.0, np.zeros(1), np.zeros(1))


def prefix_of(request: Request, best_hit_tokens: float) -> Prefix:
    """The class of a request whose longest hit is this."""
    blocks = min(int(best_hit_tokens / request.block_tokens + 0.5), len(request.chain))
    if not blocks or best_hit_tokens <= _HIGH_HIT * request.prompt_tokens:
        return _NO_PREFIX
    depth = 1 << (blocks.bit_length() - 1)
    # Half a block of slack: hits in tokens are rounded where block_tokens is not whole.
    return Prefix(int(request.chain[depth - 1]), (depth - 0.5) * request.block_tokens)


_NO_PREFIX = Prefix(None, 0.0)
