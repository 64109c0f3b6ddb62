"""Learned TTFT and TPOT per endpoint, plus what a pick lays on others; LMetric wherever learning is unsure.

**Formula.** cost = own + w x decode + c x eviction, in milliseconds, lowest wins. *own* is the reward asked for: the
predicted TTFT by default. *decode* is the delay of every answer decoded there, by this prefill and by a larger batch.
*eviction* is prefill that others will have to repeat. `picker/learning/decision.py` has the terms, docs/learning.md the
whole story.

**Prediction.** A non-negative physical base in milliseconds per hardware class x LightGBM trees on its log error x a
correction per endpoint that fades. Endpoints are known by what they do, never by which they are.

**Guard.** `multiplicative` decides while there are too few rows, where a feature leaves the trained range, when
predictions are no better than a calibrated baseline's, when the few picks left to the rule come out better, when queues
grow everywhere, when rows are poisoned. Each reason is a metric and stands in the decision log.

**Parameters.**

- `reward` (ttft): what the request itself is to gain: `ttft`, `tpot`, `e2e`, `slo-goodput`, or `weighted`.
- `ttftWeight` (1.0): with `weighted`, ms of cost per ms of TTFT.
- `decodeWeight` (0.0): with `weighted`, ms of cost per ms of the answer after its first token.
- `exploration` (0.005): share of picks drawn among endpoints within 10 % of the best.
- `predictor` (trees): or `online-tree`, one adaptive Hoeffding tree per target, learned row by row.
- `without` (()): leave out `base`, `trees`, `correction`, `marginal-cost` or `guard`, to see what each is worth.

**Limits.** Learns from its own traffic alone; a pool that serves fewer than 50 requests is served by the rule.

**Source.** Lodestar (arXiv 2606.00946) for the idea: online reward per (request, endpoint), fallback to a heuristic.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, hit_tokens=[1600, 800, 0], queued_tokens=[0, 0, 200], batch=[900, 2, 0])
    >>> scores = Learned(Params(), np.random.default_rng(0)).score(request, rows, now=0.0)
    >>> scores.by, scores.because, scores.cost
    ('rule', 'cold', array([ 901., 2400., 1800.]))
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np

from picker.engines.rows import Column, Rows
from picker.learning.decision import Balance, Congestion, Judgement, Stakes, Weights, judge
from picker.learning.experience import BY_MODEL, BY_RULE
from picker.learning.exploration import probe
from picker.learning.guard import Mode, Reason
from picker.learning.learner import Learner, Prediction
from picker.learning.online_tree import OnlineTrees
from picker.learning.ranges import outside, unknown_ground
from picker.learning.training import Parts
from picker.policies import multiplicative
from picker.policies.policy import Facts, Scores
from picker.requests.request import Request

Reward = Literal["ttft", "tpot", "e2e", "slo-goodput", "weighted"]
Part = Literal["base", "trees", "correction", "marginal-cost", "guard"]
NEAR = 1.1
"""Costs within this of the best are near it."""
PROBE_COST = 2.0
"""A forgotten endpoint is probed with a request that would cost it at most so many times what the best would."""
SLACK = 0.5
"""How far outside the trained range the model may still decide, in widths of that range."""
SLO_TTFT_MS, SLO_TPOT_MS = 1000.0, 50.0
"""Objectives of requests that bring none, for `slo-goodput`; the first grows by SLO_TTFT_MS_PER_1K."""
SLO_TTFT_MS_PER_1K = 62.5


class Params(msgspec.Struct, frozen=True, rename="camel"):
    reward: Reward = "ttft"
    ttft_weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1.0
    decode_weight: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    exploration: Annotated[float, msgspec.Meta(ge=0, le=0.2)] = 0.005
    predictor: Literal["trees", "online-tree"] = "trees"
    without: Annotated[tuple[Part, ...], msgspec.Meta(max_length=5)] = ()


class Learned:
    """The policy: the learner's predictions, the decision, the guard, and the rule underneath."""

    name = "learned"

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self.params = params
        online = OnlineTrees() if params.predictor == "online-tree" and "trees" not in params.without else None
        self.learner = Learner(correct="correction" not in params.without, online=online)
        self.balance, self.congestion = Balance(), Congestion()
        self.rule = multiplicative.Multiplicative(multiplicative.Params())
        self._rng = rng
        self._weights = _weights(params)
        self._guarded = "guard" not in params.without
        self._marginal = "marginal-cost" not in params.without
        self._probed_at = -math.inf
        self._rate = 0.0
        self._rate_at = 0.0

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        learner, guard = self.learner, self.learner.guard
        prediction = learner.predict(request, rows, now)
        rule = self.rule.score(request, rows, now)
        model = learner.model
        if model is None or prediction.said is None:
            memo = _Pick(prediction, None, BY_RULE, 0, guard.why(BY_RULE))
            return Scores(rule.cost, rule.reasons, by="rule", because=memo.reason.value, memo=memo)
        stakes = self._stakes(request, len(rows), now)
        said = judge(model, prediction.said, prediction.known, rows, prediction.correction, prediction.chance, stakes)
        best, ruled = int(np.argmin(said.cost)), int(np.argmin(rule.cost))
        unknown = self._guarded and unknown_ground(
            outside(prediction.known.trees.astype(np.float32), model.lowest, model.highest, SLACK), best
        )
        by = guard.draw(self._rng) if self._guarded else BY_MODEL
        if unknown:
            by = BY_RULE
        reason = guard.why(by, unknown) if self._guarded else Reason.NONE
        near = said.cost <= said.cost[best] * NEAR
        model_share = 0.0 if unknown else guard.propensity(BY_MODEL) if self._guarded else 1.0
        propensity = self._propensity(model_share, best, near, rule.cost)
        reasons = _reasons(said, prediction, rule.cost, stakes)
        memo = _Pick(prediction, said, by, ruled, reason, 0.0 if unknown else 1.0 / max(guard.propensity(by), 1e-3))
        if by == BY_RULE:
            return Scores(rule.cost, reasons, propensity, "rule", reason.value, memo)
        cost, because = said.cost, reason.value
        starved = probe(learner.since_picked(rows.slots, now), now - self._probed_at, self._rate)
        if starved is not None and said.cost[starved] <= PROBE_COST * said.cost[best]:
            cost, because = _first(cost, starved), "probe"
            propensity = np.where(np.arange(len(rows)) == starved, 1.0, 0.0)
            memo.probe, memo.weight = True, 0.0
        elif self._rng.random() < self.params.exploration:
            cost, because = _first(cost, int(self._rng.choice(np.flatnonzero(near)))), "exploration"
        return Scores(cost, reasons, propensity, "model", because, memo)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        self.rule.picked(request, rows, row, now)

    def ensure(self, capacity: int) -> None:
        self.learner.ensure(capacity)

    def reserved(
        self, flight: int, request: Request, rows: Rows, row: int, scores: Scores, propensity: float, now: float
    ) -> None:
        pick = scores.memo
        if not isinstance(pick, _Pick) or pick.prediction is None:
            return
        learner = self.learner
        learner.placed(request, rows, row, now)
        learner.reserved(
            flight, request, rows, row, pick.prediction, by=pick.by, propensity=propensity, weight=pick.weight, now=now
        )
        learner.guard.picked(pick.reason)
        keep = math.exp(min(0.0, self._rate_at - now) / 60.0)
        self._rate, self._rate_at = self._rate * keep + 1 / 60.0, now
        if pick.probe:
            self._probed_at = now
        if pick.said is not None:
            learner.saw_queue(pick.prediction, rows)
            self.congestion.placed(float(pick.said.prefill_ms[row]), now)
            if pick.by == BY_MODEL:
                self.balance.picked(pick.said.decode_ms, row, pick.ruled)
        # The decision log keeps scores for long.
        pick.prediction = pick.said = None

    def first_byte(self, flight: int, ttft_s: float, now: float) -> None:
        self.learner.first_byte(flight, ttft_s, now)

    def ended(self, flight: int, facts: Facts | None, now: float) -> None:
        if facts is None or facts.status != 200:
            self.learner.dropped(flight)
        else:
            self.learner.ended(flight, facts.ttft_s, facts.tpot_s, facts.completion_tokens, now)

    def left(self, slot: int) -> None:
        self.learner.left(slot)

    @property
    def mode(self) -> Mode:
        """Who is in charge."""
        return self.learner.guard.mode

    @property
    def parts(self) -> Parts:
        """What its models are to be made of."""
        without, shared = self.params.without, self.learner.online is None
        return Parts(
            base="base" not in without,
            trees=shared and "trees" not in without,
            corrections=shared and "correction" not in without,
        )

    def _stakes(self, request: Request, endpoints: int, now: float) -> Stakes:
        hints = request.hints
        slo_ttft = SLO_TTFT_MS + SLO_TTFT_MS_PER_1K * request.prompt_tokens / 1e3
        return Stakes(
            prompt_tokens=max(1.0, request.prompt_tokens),
            output_tokens=self.learner.lengths.expect(request).mean,
            decode_weight=self.balance.weight if self._marginal else 0.0,
            congestion=self.congestion.factor(endpoints, now) if self._marginal else 0.0,
            weights=self._weights,
            slo_ttft_ms=slo_ttft if hints.slo_ttft_ms is None else hints.slo_ttft_ms,
            slo_tpot_ms=SLO_TPOT_MS if hints.slo_tpot_ms is None else hints.slo_tpot_ms,
            spread=self.learner.spread,
        )

    def _propensity(self, model_share: float, best: int, near: Column, rule_cost: Column) -> Column:
        """Chance of each endpoint to come first."""
        cheapest = rule_cost == rule_cost.min()
        explored = self.params.exploration
        chance: Column = (1.0 - model_share) * cheapest / np.count_nonzero(cheapest)
        chance += model_share * explored * near / np.count_nonzero(near)
        chance[best] += model_share * (1.0 - explored)
        return chance


@dataclass(slots=True)
class _Pick:
    """Between scoring and reserving."""

    prediction: Prediction | None
    said: Judgement | None
    by: int
    ruled: int
    reason: Reason
    weight: float = 0.0
    """One over the chance that the one who decided had of deciding; 0 where that was not drawn."""
    probe: bool = False


def _weights(params: Params) -> Weights:
    match params.reward:
        case "ttft":
            return Weights()
        case "tpot":
            return Weights(0.0, 1.0)
        case "e2e":
            return Weights(1.0, 1.0)
        case "slo-goodput":
            return Weights(0.1, 0.0, SLO_TTFT_MS)
        case "weighted":
            return Weights(params.ttft_weight, params.decode_weight)


def _first(cost: Column, row: int) -> Column:
    """The same costs, but for `row` being the least."""
    changed = cost.copy()
    changed[row] = cost.min() - 1.0
    return changed


def _reasons(said: Judgement, prediction: Prediction, rule_cost: Column, stakes: Stakes) -> dict[str, Column]:
    return {
        "predicted_ttft_ms": said.ttft_ms,
        "predicted_tpot_ms": said.tpot_ms,
        "correction": prediction.correction[0],
        "own_ms": said.own_ms,
        "decode_ms": stakes.decode_weight * said.decode_ms,
        "eviction_ms": stakes.congestion * said.eviction_ms,
        "marginal_ms": said.cost - said.own_ms,
        "rule_cost": rule_cost,
    }
