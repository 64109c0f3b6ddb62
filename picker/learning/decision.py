"""From predictions to a cost in milliseconds: what the request itself will see, and what it lays on others.

The least own latency is a poor choice for everybody: it crowds the fast engines, tips a busy pool over, and evicts what
others come back for. So the cost of an endpoint is

    own        the reward asked for: TTFT, tokens, both, or the chance of missing an objective
    + w x decode    every answer decoded there waits for this prefill, and each of its tokens takes longer in a larger
                    batch; so does every token of this answer
    + c x eviction  the prefill, to be repeated, of blocks that this request pushes out, by the chance that they are
                    asked for again

Nothing here is tuned to a trace: `w` is steered so that tokens come no slower than under the rule (Balance), `c` is how
much a millisecond of extra work costs all who queue behind it at the present load (congestion).
"""

import math
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column, Rows
from picker.learning.experience import LONGEST_MS
from picker.learning.features import Features, Matrix
from picker.learning.model import LEAST_MS, Estimate, Model, Vector, waits

Reward = Literal["ttft", "tpot", "e2e", "slo-goodput"]

PREFILL_TERMS = (1, 2)
"""Of a TTFT's terms: the prefill of this request alone."""
BATCH_TERM, CONTEXT_TERM = 1, 2
"""Of a TPOT's terms: what one more request and one million more tokens of context add to a step."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much of each own latency counts: ms of cost per ms of TTFT, and per ms of the whole answer after it."""

    ttft: float = 1.0
    decode: float = 0.0
    slo: float = 0.0
    """ms of cost of a missed objective."""


class Stakes(msgspec.Struct, frozen=True, gc=False):
    """What the moment brings to a decision, whichever the endpoint."""

    prompt_tokens: float
    output_tokens: float
    """Expected."""
    decode_weight: float
    congestion: float
    weights: Weights = Weights()
    slo_ttft_ms: float = math.inf
    slo_tpot_ms: float = math.inf
    spread: float = 0.3
    """Standard deviation of log TTFT around the prediction."""


COLUMNS = 11
COST, TTFT, TPOT, OWN, DECODE, EVICTION, PREFILL, CORRECTION, STEP_CORRECTION, WAIT, ALONE = range(COLUMNS)


class Judgement(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Of N endpoints; every column (N,), milliseconds but for the correction."""

    columns: Matrix
    """Shape (COLUMNS, N)."""

    @property
    def cost(self) -> Column:
        return self._column(COST)

    @property
    def ttft_ms(self) -> Column:
        return self._column(TTFT)

    @property
    def tpot_ms(self) -> Column:
        return self._column(TPOT)

    @property
    def own_ms(self) -> Column:
        return self._column(OWN)

    @property
    def decode_ms(self) -> Column:
        """Delay of all answers decoded there and of this one's, unweighted."""
        return self._column(DECODE)

    @property
    def eviction_ms(self) -> Column:
        """Prefill to be repeated, unweighted."""
        return self._column(EVICTION)

    @property
    def prefill_ms(self) -> Column:
        """Of this request alone."""
        return self._column(PREFILL)

    @property
    def correction(self) -> Column:
        """Of TTFT, log."""
        return self._column(CORRECTION)

    @property
    def wait_ms(self) -> Column:
        """Until this request's own prefill begins, by the base."""
        return self._column(WAIT)

    @property
    def alone_ms(self) -> Column:
        """That prefill on an idle engine, by the base."""
        return self._column(ALONE)

    def _column(self, which: int) -> Column:
        column: Column = self.columns[which]
        return column


def judge(
    model: Model, said: Estimate, known: Features, rows: Rows, correction: Vector, chance: Column, stakes: Stakes
) -> Judgement:
    """Costs of N endpoints. `correction` is (2, N) in log; `chance`, (N,), that a block evicted there is asked for
    again, 0 where there is room."""
    ttft, tpot = np.exp(said.log_ttft + correction[0]), np.exp(said.log_tpot + correction[1])
    ttft_base, tpot_base = model.ttft_base[rows.hardware].T, model.tpot_base[rows.hardware].T
    slowness, step_slowness = np.exp(correction[0]), np.exp(correction[1])
    prefill = slowness * sum(ttft_base[term] * known.ttft_terms[term] for term in PREFILL_TERMS)
    output = stakes.output_tokens
    context_m = (stakes.prompt_tokens + output / 2) / 1e6
    step = step_slowness * (tpot_base[BATCH_TERM] + tpot_base[CONTEXT_TERM] * context_m)
    decoding = np.maximum(0.0, rows.batch - rows.prefilling)
    # Others are half way through their answers, on the mean.
    decode = output * tpot + decoding * (output / 2 * step + prefill)
    # Blocks come back as part of a prompt like this one.
    per_token = slowness * (ttft_base[1] / 1e3 + ttft_base[2] * stakes.prompt_tokens / 2 / 1e6)
    eviction = (rows.new_tokens + output) * per_token * chance
    own = stakes.weights.ttft * ttft + stakes.weights.decode * output * tpot
    if stakes.weights.slo:
        own += stakes.weights.slo * missed(ttft, tpot, stakes)
    cost = own + stakes.decode_weight * decode + stakes.congestion * eviction
    cost[too_small(rows, stakes.prompt_tokens)] = math.inf
    line = waits(model.ttft_base, known.ttft_terms, known.head_ms, rows.hardware)
    return Judgement(np.stack((cost, ttft, tpot, own, decode, eviction, prefill, *correction, *line)))


def too_small(rows: Rows, prompt_tokens: float) -> NDArray[np.bool_]:
    """Endpoints whose whole KV cache cannot hold the prompt, (N,): they would refuse it."""
    return (rows.kv_tokens > 0) & (rows.kv_tokens < prompt_tokens)


def missed(ttft_ms: Column, tpot_ms: Column, stakes: Stakes) -> Column:
    """Chance of missing the objective, (N,); errors of both predictions are taken for independent and normal in log."""
    kept = np.ones_like(ttft_ms)
    for value, limit in ((ttft_ms, stakes.slo_ttft_ms), (tpot_ms, stakes.slo_tpot_ms)):
        if math.isfinite(limit):
            z = (math.log(max(limit, LEAST_MS)) - np.log(np.maximum(value, LEAST_MS))) / max(stakes.spread, 1e-3)
            # The logistic curve stands in for the normal's: within .01 of it.
            kept = kept / (1.0 + np.exp(-np.clip(1.702 * z, -60.0, 60.0)))
    return 1.0 - kept


class Balance:
    """The weight of decode cost, steered by what picks do to it.

    Each pick is held against the rule's own choice: how much more decode delay, over the mean of all endpoints, did it
    accept? The weight rises while that is above zero on the mean of some 200 picks, and falls while it is below: tokens
    are to come no slower than under the rule, and what is spared beyond that is given back to the first token.
    """

    LEAST, MOST = 0.02, 1.0
    _FORGET, _STEP = 1 / 200, 0.4

    def __init__(self, weight: float = 0.3) -> None:
        self.weight = weight
        self.excess = 0.0
        """Mean decode delay accepted beyond the rule's picks, over that of a mean endpoint."""

    def picked(self, decode_ms: Column, chosen: int, rule: int) -> None:
        """The model chose row `chosen` where the rule would have chosen row `rule`."""
        mean = float(np.add.reduce(decode_ms)) / len(decode_ms)
        if not 0 < mean < math.inf:
            return
        more = (float(decode_ms[chosen]) - float(decode_ms[rule])) / mean
        self.excess += self._FORGET * (max(-1.0, min(1.0, more)) - self.excess)
        self.weight = min(self.MOST, max(self.LEAST, self.weight * math.exp(self._STEP * self.excess)))


class Congestion:
    """How many milliseconds a millisecond of extra prefill costs everybody: 1 / (1 - load), what an arrival adds to the
    busy period of a queue. Load is prefill placed over the time there was for it, in the last minute."""

    MOST = 10.0
    _MINUTE_S = 60.0

    def __init__(self) -> None:
        self._placed_s = 0.0
        self._at = -math.inf
        self._since: float | None = None

    def placed(self, prefill_ms: float, now: float) -> None:
        """A pick will take so much prefill; more than can be, or less than nothing, is not believed."""
        if not prefill_ms > 0:
            return
        prefill_ms = min(prefill_ms, LONGEST_MS)
        if self._since is None:
            self._since = self._at = now
        self._placed_s = self._placed_s * self._fade(now) + prefill_ms / 1e3
        self._at = max(self._at, now)

    def factor(self, endpoints: int, now: float) -> float:
        """At least 1, at most MOST."""
        if self._since is None or not endpoints:
            return 1.0
        # A window that fades by the minute holds this much time since the first pick.
        window = self._MINUTE_S * -math.expm1(-max(now - self._since, 1.0) / self._MINUTE_S)
        load = self._placed_s * self._fade(now) / (window * endpoints)
        return 1.0 / max(1.0 - load, 1.0 / self.MOST)

    def _fade(self, now: float) -> float:
        return math.exp(min(self._at - now, 0.0) / self._MINUTE_S)
