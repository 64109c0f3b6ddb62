"""What a stage costs: how many requests are in it at any time, in a steady state of the engines' own step model.

By Little's law requests in the pool over tokens per ms is the mean time in it per token of answer, waiting and prefill
included: normalised latency, the paper's QoE. It adds up over stages, so a plan is a sum.

One engine of a stage has its share of the stage's traffic. Everything a step computes is a rate times the step, so

    step = fixed / (1 - load),    load = prefill + decode + alpha x context_ms x excess

`excess` is the tokens of context by which the longest request of the batch exceeds the others, summed over them and per
ms. With Poisson batches, for lengths h_0 < h_1 < ... decoded at rates d_i, sum over i of
(h_i - h_(i-1)) x (d_0 + ... + d_(i-1)) x (1 - exp(-step x (d_i + d_(i+1) + ...))): a token pays for each further length
that somebody in its batch has. It depends on the step, and both are found by iteration from below.

Then, in requests: decoding, tokens x step; in prefill, (prefill + arrivals x wait) x step / fixed, where wait is
Pollaczek and Khinchine's, shortened by the number of engines that share the line as in Sakasegawa's formula. The line
is first come, first served, so long prompts make short ones wait; more engines in one stage wait less. Both are
counted, or staging would look better than it is.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from picker.stages.lengths import (
    ARRIVALS,
    CHUNKS,
    COLUMNS,
    CONTEXT,
    CROSSINGS,
    HISTORY,
    NEW,
    NEW_NEW,
    NEW_WORK,
    PROMPTS,
    REUSED,
    REUSED_WORK,
    TOKENS,
    WORK,
    WORK_WORK,
    Floats,
    Traffic,
)
from picker.stages.step_model import StepModel

Buckets = NDArray[np.intp]
Fits = NDArray[np.bool_]
Stage = tuple[int, int, tuple[int, ...]]
"""Its buckets, from and up to, and its engines of each kind."""

LOAD_MOST = 0.95
"""An engine loaded beyond is taken for unstable."""
KV_MOST = 0.9
"""Share of the KV cache that a steady state may fill."""
_ROUNDS = 5
_ROWS = 512
"""Stages evaluated at once: what they need stays in a core's cache."""
_COEFFICIENTS = ("fixed_ms", "prefill_ms", "work_ms", "context_ms", "mixed_ms", "alpha", "kv_tokens")


class Valuation:
    """Costs of stages under one traffic on engines of T kinds."""

    def __init__(self, traffic: Traffic, kinds: Sequence[StepModel], *, move_ms: float) -> None:
        """`move_ms`: what it costs a request to be moved, and to be moved it is charged at each crossing."""
        self.kinds = tuple(kinds)
        self.edges = traffic.edges
        self.per_ms = traffic.tokens_per_s / 1e3
        """Tokens of answers."""
        rates = traffic.columns / 1e3
        self._sums = np.concatenate((np.zeros((len(rates), 1)), rates.cumsum(axis=1)), axis=1)
        tokens, context = rates[TOKENS], rates[CONTEXT]
        heights = np.maximum.accumulate(np.divide(context, tokens, out=np.zeros_like(tokens), where=tokens > 0))
        # A bucket without tokens adds nothing; leaving it out saves most of the work.
        self._at = np.flatnonzero(tokens > 0)
        self._rises = np.diff(heights[self._at], prepend=0.0)
        self._heights = heights
        self._coefficients = np.array([[getattr(kind, name) for kind in self.kinds] for name in _COEFFICIENTS])
        self._prefill, self._decode = _loads(self.kinds)
        self._known: dict[Stage, float] = {}
        prefill = float(np.mean([kind.prefill_ms for kind in self.kinds]))
        work = float(np.mean([kind.work_ms for kind in self.kinds]))
        self._bounds: Floats = rates[CROSSINGS] * move_ms + rates[REUSED] * prefill + rates[REUSED_WORK] * work / 1e6

    @property
    def buckets(self) -> int:
        return len(self._bounds)

    def boundaries(self) -> Floats:
        """Cost of a boundary at the lower edge of each bucket, shape (B,): moves, and cached prompts computed anew."""
        return self._bounds

    def costs(self, stages: Sequence[Stage]) -> list[float]:
        """As `stages`, of some that come again and again."""
        new = list(dict.fromkeys(stage for stage in stages if stage not in self._known))
        if new:
            lows, highs, counts = zip(*new, strict=True)
            self._known |= zip(new, self.stages(lows, highs, np.array(counts, np.float64)).tolist(), strict=True)
        return [self._known[stage] for stage in stages]

    def stages(self, low: Sequence[int] | Buckets, high: Sequence[int] | Buckets, counts: Floats) -> Floats:
        """Requests in each of R stages of buckets low..high-1 on `counts`, (R, T), engines of each kind: shape (R,).

        inf where the load is too high, or KV does not fit.
        """
        lows, highs = np.asarray(low, np.intp), np.asarray(high, np.intp)
        found = np.empty(len(lows))
        # Stages of like width together: none is computed over more buckets than it needs.
        order = np.argsort(highs - lows, kind="stable")
        for start in range(0, len(lows), _ROWS):
            part = order[start : start + _ROWS]
            found[part] = self._stages(lows[part], highs[part], np.asarray(counts[part], np.float64))
        return found

    def _stages(self, low: Buckets, high: Buckets, counts: Floats) -> Floats:
        sums = self._sums[:, high] - self._sums[:, low]
        # Engines share by what they can carry of this very mix.
        speeds = 1.0 / np.maximum((self._prefill + self._decode) @ sums, 1e-12)
        total_speed = np.maximum((counts.T * speeds).sum(axis=0), 1e-300)
        # One engine of each kind that a stage has stands for all of that kind.
        row, kind = np.nonzero(counts > 0)
        share = speeds[kind, row] / total_speed[row]
        peers = counts.sum(axis=1)
        one = self._engines(kind, sums[:, row] * share, low[row], high[row], share, peers[row])
        cost = np.bincount(row, counts[row, kind] * one, minlength=len(low))
        cost[peers == 0] = np.inf
        return np.where(sums[[ARRIVALS, TOKENS]].sum(axis=0) > 0, cost, np.where(np.isinf(cost), np.inf, 0.0))

    def _engines(
        self, kind: Buckets, rates: Floats, low: Buckets, high: Buckets, share: Floats, peers: Floats
    ) -> Floats:
        """Requests on each of E engines of these kinds; `rates`, (COLUMNS, E), are their own."""
        fixed, prefill_ms, work_ms, context_ms, mixed_ms, alpha, kv_tokens = self._coefficients[:, kind]
        prefill = np.einsum("ec,ce->e", self._prefill[kind], rates)
        busy = prefill + np.einsum("ec,ce->e", self._decode[kind], rates)
        mixed = mixed_ms * rates[CONTEXT] / 1e6
        most = np.where(kv_tokens > 0, KV_MOST * kv_tokens, np.inf)

        prompts = rates[PROMPTS] * prefill / (np.maximum(rates[ARRIVALS], 1e-12) * fixed)

        def fit(step: Floats) -> Fits:
            kv = (rates[CONTEXT] + prompts) * step
            return np.asarray((1.0 - fixed / step <= LOAD_MOST) & (kv <= most) & ~tall)

        tall = self.tallest(low, high) > most
        step = _step(fixed, busy, mixed, rates[CHUNKS])
        # Unlike lengths make steps longer: an engine that cannot do without them is done with.
        some = np.flatnonzero(fit(step) & (alpha > 0))
        step[some] = self._uneven(
            step[some],
            alpha[some] * context_ms[some] / 1e6,
            low[some],
            high[some],
            share[some],
            lambda more: _step(fixed[some], busy[some] + more, mixed[some], rates[CHUNKS, some]),
        )
        stretch = step / fixed
        load = 1.0 - 1.0 / stretch
        second = (
            prefill_ms**2 * rates[NEW_NEW]
            + 2e-6 * prefill_ms * work_ms * rates[NEW_WORK]
            + 1e-12 * work_ms**2 * rates[WORK_WORK]
        )
        alone = np.maximum(load, 1e-9) ** (np.sqrt(2.0 * (peers + 1.0)) - 2.0) / peers
        with np.errstate(invalid="ignore"):
            requests = (prefill + rates[ARRIVALS] * second / 2 * alone) * stretch + rates[TOKENS] * step
        return np.where(fit(step), requests, np.inf)

    def _uneven(
        self, step: Floats, price: Floats, low: Buckets, high: Buckets, share: Floats, again: Callable[[Floats], Floats]
    ) -> Floats:
        """The steps with what unlike lengths cost, shape (E,): `price` per token of excess; `again` is the step with so
        much more load."""
        upto, at = self._sums[TOKENS], self._at
        first, last = np.searchsorted(at, low, "right"), np.searchsorted(at, high)
        place = first[:, None] + np.arange(int((last - first).max(initial=0)))
        inside = place < last[:, None]
        place = np.minimum(place, len(at) - 1)
        below = np.where(inside, (upto[at][place] - upto[low][:, None]) * self._rises[place] * share[:, None], 0.0)
        above = np.where(inside, upto[at][place] - upto[high][:, None], 0.0) * share[:, None]
        parted = np.empty_like(above)
        for _ in range(_ROUNDS):
            np.multiply(np.minimum(step, 1e6)[:, None], above, out=parted)
            np.expm1(parted, out=parted)
            step = again(-price * np.einsum("eb,eb->e", below, parted))
        return step

    def tallest(self, low: Buckets, high: Buckets) -> Floats:
        """The longest contexts, in tokens, of stages of these buckets, shape (R,); 0 where nothing is decoded."""
        if not len(self._at):
            return np.zeros(len(low))
        last = np.searchsorted(self._at, high) - 1
        top = self._at[np.maximum(last, 0)]
        return np.where((last >= 0) & (top >= low), self._heights[top], 0.0)


def _loads(kinds: Sequence[StepModel]) -> tuple[Floats, Floats]:
    """Shares of an engine's time that a rate of one takes for prefill and for decode, beyond the fixed part of its
    steps; each (T, COLUMNS)."""
    prefill, decode = np.zeros((len(kinds), COLUMNS)), np.zeros((len(kinds), COLUMNS))
    for place, kind in enumerate(kinds):
        prefill[place, [NEW, WORK, HISTORY]] = kind.prefill_ms, kind.work_ms / 1e6, kind.history_ms / 1e3
        decode[place, [TOKENS, CONTEXT]] = kind.decode_ms, kind.context_ms / 1e6
    return prefill, decode


def _step(fixed: Floats, load: Floats, mixed: Floats, chunks: Floats) -> Floats:
    """The step in ms at this load; 1e9 where there is none. Decode context costs `mixed` more in the share of steps
    that also prefill, min(1, chunks x step): a root of a quadratic, or all steps do."""
    left = 1.0 - load
    inside = left**2 - 4.0 * mixed * chunks * fixed
    sometimes = 2.0 * fixed / np.maximum(left + np.sqrt(np.maximum(inside, 0.0)), 1e-12)
    always = fixed / np.maximum(left - mixed, 1e-12)
    step = np.where((inside >= 0) & (chunks * sometimes <= 1.0), sometimes, always)
    return np.where((left > 0) & (step < 1e9), step, 1e9)
