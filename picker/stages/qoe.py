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

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from picker.stages.lengths import (
    ARRIVALS,
    CHUNKS,
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

LOAD_MOST = 0.95
"""An engine loaded beyond is taken for unstable."""
KV_MOST = 0.9
"""Share of the KV cache that a steady state may fill."""
_ROUNDS = 5
_ROWS = 4096
"""Stages evaluated at once; bounds memory."""


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
        prefill = float(np.mean([kind.prefill_ms for kind in self.kinds]))
        work = float(np.mean([kind.work_ms for kind in self.kinds]))
        self._bounds: Floats = rates[CROSSINGS] * move_ms + rates[REUSED] * prefill + rates[REUSED_WORK] * work / 1e6

    @property
    def buckets(self) -> int:
        return len(self._bounds)

    def boundaries(self) -> Floats:
        """Cost of a boundary at the lower edge of each bucket, shape (B,): moves, and cached prompts computed anew."""
        return self._bounds

    def stages(self, low: Sequence[int] | Floats, high: Sequence[int] | Floats, counts: Floats) -> Floats:
        """Requests in each of R stages of buckets low..high-1 on `counts`, (R, T), engines of each kind: shape (R,).

        inf where the load is too high, or KV does not fit.
        """
        lows, highs = np.asarray(low, np.intp), np.asarray(high, np.intp)
        found = np.empty(len(lows))
        for start in range(0, len(lows), _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = self._stages(lows[part], highs[part], np.asarray(counts[part], np.float64))
        return found

    def _stages(self, low: Buckets, high: Buckets, counts: Floats) -> Floats:
        sums = self._sums[:, high] - self._sums[:, low]
        loads = np.stack([_load(kind, sums).sum(axis=0) for kind in self.kinds])
        # Engines share by what they can carry of this very mix.
        speeds = 1.0 / np.maximum(loads, 1e-12)
        total_speed = np.maximum((counts.T * speeds).sum(axis=0), 1e-300)
        cost = np.zeros(len(low))
        for kind, speed, number in zip(self.kinds, speeds, counts.T, strict=True):
            here = number > 0
            if here.any():
                share = (speed / total_speed)[here]
                one = self._engine(kind, sums[:, here] * share, low[here], high[here], share, counts[here].sum(axis=1))
                cost[here] += number[here] * one
        cost[counts.sum(axis=1) == 0] = np.inf
        return np.where(sums[[ARRIVALS, TOKENS]].sum(axis=0) > 0, cost, np.where(np.isinf(cost), np.inf, 0.0))

    def _engine(
        self,
        kind: StepModel,
        rates: Floats,
        low: Buckets,
        high: Buckets,
        share: Floats,
        peers: Floats,
    ) -> Floats:
        """Requests on one engine; `rates`, (COLUMNS, R), are its own."""
        prefill, decode = _load(kind, rates)
        below, above, rise = self._around(low, high, share)
        step = _step(kind, prefill + decode, rates)
        if kind.alpha:
            for _ in range(_ROUNDS):
                excess = (rise * below * -np.expm1(-np.minimum(step, 1e6)[:, None] * above)).sum(axis=1)
                step = _step(kind, prefill + decode + kind.alpha * kind.context_ms * excess / 1e6, rates)
        stretch = step / kind.fixed_ms
        load = 1.0 - 1.0 / stretch
        second = (
            kind.prefill_ms**2 * rates[NEW_NEW]
            + 2e-6 * kind.prefill_ms * kind.work_ms * rates[NEW_WORK]
            + 1e-12 * kind.work_ms**2 * rates[WORK_WORK]
        )
        alone = np.maximum(load, 1e-9) ** (np.sqrt(2.0 * (peers + 1.0)) - 2.0) / peers
        with np.errstate(invalid="ignore"):
            requests = (prefill + rates[ARRIVALS] * second / 2 * alone) * stretch + rates[TOKENS] * step
            kv = rates[CONTEXT] * step + rates[PROMPTS] * stretch * prefill / np.maximum(rates[ARRIVALS], 1e-12)
        most = KV_MOST * kind.kv_tokens if kind.kv_tokens else np.inf
        tall = self.tallest(low, high) > most
        return np.where((load <= LOAD_MOST) & (kv <= most) & ~tall, requests, np.inf)

    def _around(self, low: Buckets, high: Buckets, share: Floats) -> tuple[Floats, Floats, Floats]:
        """Tokens per ms on one engine below each bucket and from it on, (R, buckets), and the rises in height."""
        upto, at = self._sums[TOKENS], self._at
        inside = (at > low[:, None]) & (at < high[:, None])
        below = np.where(inside, share[:, None] * (upto[at] - upto[low][:, None]), 0.0)
        above = np.where(inside, share[:, None] * (upto[high][:, None] - upto[at]), 0.0)
        return below, above, self._rises

    def tallest(self, low: Buckets, high: Buckets) -> Floats:
        """The longest contexts, in tokens, of stages of these buckets, shape (R,); 0 where nothing is decoded."""
        if not len(self._at):
            return np.zeros(len(low))
        last = np.searchsorted(self._at, high) - 1
        top = self._at[np.maximum(last, 0)]
        return np.where((last >= 0) & (top >= low), self._heights[top], 0.0)


def _load(kind: StepModel, rates: Floats) -> Floats:
    """Share of its time that an engine spends on prefill and on decode, beyond the fixed part of its steps; (2, R)."""
    prefill = kind.prefill_ms * rates[NEW] + kind.work_ms * rates[WORK] / 1e6 + kind.history_ms * rates[HISTORY] / 1e3
    decode = kind.decode_ms * rates[TOKENS] + kind.context_ms * rates[CONTEXT] / 1e6
    return np.stack((prefill, decode))


def _step(kind: StepModel, load: Floats, rates: Floats) -> Floats:
    """The step in ms at this load; inf where there is none. Decode context costs more in the share of steps that also
    prefill, min(1, chunks x step): a root of a quadratic, or all steps do."""
    left, mixed = 1.0 - load, kind.mixed_ms * rates[CONTEXT] / 1e6
    inside = left**2 - 4.0 * mixed * rates[CHUNKS] * kind.fixed_ms
    sometimes = 2.0 * kind.fixed_ms / np.maximum(left + np.sqrt(np.maximum(inside, 0.0)), 1e-12)
    always = kind.fixed_ms / np.maximum(left - mixed, 1e-12)
    step = np.where((inside >= 0) & (rates[CHUNKS] * sometimes <= 1.0), sometimes, always)
    return np.where((left > 0) & (step < 1e9), step, 1e9)
