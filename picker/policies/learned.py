"""Learned TTFT and TPOT per endpoint, plus what a pick lays on others; LMetric wherever learning is unsure.

**Formula.** cost = own + w x decode + c x eviction, in milliseconds, lowest wins. *own* is the reward asked for: the
predicted TTFT by default. *decode* is the delay of every answer decoded there, by this prefill and by a larger batch.
*eviction* is prefill that others will have to repeat. `picker/learning/decision.py` has the terms, docs/learning.md the
whole story. Where the rule's choice costs no more above the best than predictions err, it is taken.

**Prediction.** A non-negative physical base in milliseconds per hardware class x LightGBM trees on its log error x a
correction per endpoint that fades. Endpoints are known by what they do, never by which they are.

**Guard.** `multiplicative` decides while there are too few rows, where a feature leaves the trained range, when
predictions are no better than a calibrated baseline's, when the few picks left to the rule come out better, when queues
grow everywhere, when rows are poisoned. Each reason is a metric and stands in the decision log.

**Parameters.**

- `reward` (ttft): what the request itself is to gain: `ttft`, `tpot`, `e2e`, `slo-goodput`, or `weighted`.
- `ttftWeight` (1.0): with `weighted`, ms of cost per ms of TTFT.
- `decodeWeight` (0.0): with `weighted`, ms of cost per ms of the answer after its first token.
- `exploration` (0.005): share of picks drawn among endpoints that are as good as the best, as far as one can tell.
- `predictor` (trees): or `online-tree`, one adaptive Hoeffding tree per target, learned row by row.
- `without` (()): leave out `base`, `trees`, `correction`, `marginal-cost` or `guard`, to see what each is worth.

Endpoints whose KV cache is known to be too small for the prompt are left out: they would refuse it.

**Limits.** Learns from what it or a replica serves; a pool that serves fewer than 50 requests is served by the rule.

**Source.** Lodestar (arXiv 2606.00946) for the idea: online reward per (request, endpoint), fallback to a heuristic.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, hit_tokens=[1600, 800, 0], queued_tokens=[0, 0, 200], batch=[900, 2, 0])
    >>> scores = Learned(Params(), np.random.default_rng(0)).score(request, rows, now=0.0)
    >>> scores.by, scores.because, scores.cost
    ('rule', 'cold', array([ 901., 2400., 1800.]))
"""

import math
from typing import Annotated, Literal

import msgspec
import numpy as np

from picker.engines.rows import Column, Rows
from picker.learning.decision import COST, Balance, Congestion, Judgement, Stakes, Weights, too_small
from picker.learning.experience import BY_MODEL, BY_RULE
from picker.learning.exploration import preferred, starved
from picker.learning.guard import Mode, Reason
from picker.learning.prediction import Foresight
from picker.learning.training import Parts
from picker.policies import multiplicative
from picker.policies.learned_reasons import Reasons
from picker.policies.policy import Facts, Scores
from picker.requests.request import Request

Reward = Literal["ttft", "tpot", "e2e", "slo-goodput", "weighted"]
Part = Literal["base", "trees", "correction", "marginal-cost", "guard"]
_WORDS = {reason: reason.value for reason in Reason}
NEAR, NEAR_SPREADS = 1.1, 0.7
"""Costs within this of the best, and within so many standard deviations of what predictions err in log, are near it;
where the rule's choice is, it is taken: the least of many uncertain costs is more often luck than merit."""
PROBE, EXPLORATION = TRIED = ("probe", "exploration")
"""Why picks are made that are to teach something."""
PROBE_COST = 2.0
"""A forgotten endpoint is probed with a request that would cost it at most so many times what the best would."""
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
        # Not above: with them comes most of SciPy, a second or two of which only who learns should wait for.
        from picker.learning.learner import Learner
        from picker.learning.online_tree import OnlineTrees

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
        if learner.model is None or not len(rows):
            return self._by_rule(request, rows, now)
        rule_cost = self.rule.cost(request, rows, now)
        stakes = self._stakes(request, len(rows), now)
        try:
            opinion = learner.judge(request, rows, stakes, now)
        except Exception:
            # Whatever is wrong with what was learned, the request gets its endpoint; the count shows it.
            guard.picked(Reason.FAILED)
            reasons = self.rule.score(request, rows, now).reasons
            return Scores(_where_it_fits(rule_cost, request, rows), reasons, None, "rule", Reason.FAILED.value)
        if opinion.refusing:
            rule_cost = _where_it_fits(rule_cost, request, rows)
        said = opinion.judgement
        least = float(said.columns[COST, opinion.best])
        unknown = (self._guarded and opinion.unknown) or not math.isfinite(least)
        share = guard.propensity(BY_MODEL) if self._guarded else 1.0
        by = BY_MODEL if self._rng.random() < share else BY_RULE
        if unknown:
            by = BY_RULE
        reason = guard.why(by, unknown) if self._guarded else Reason.NONE
        near, explored = max(NEAR, math.exp(NEAR_SPREADS * learner.spread)), self.params.exploration
        # The rule also knows what no prediction of one request does: how to keep a pool even.
        told = np.empty((2, len(rows)))
        within, ruled = preferred(said.cost, rule_cost, opinion.best, near, 0.0 if unknown else share, explored, told)
        cost, propensity = told[0], told[1]
        reasons = Reasons(said, rule_cost, stakes.decode_weight, stakes.congestion)
        drawn = share if by == BY_MODEL else 1.0 - share
        weight = 0.0 if unknown else 1.0 / max(drawn, 1e-3)
        memo = _Pick(opinion.foresight, said, by, ruled, reason, stakes.output_tokens, weight)
        if by == BY_RULE:
            return Scores(rule_cost, reasons, propensity, "rule", _WORDS[reason], memo)
        because = _WORDS[reason]
        forgotten, left_out_s = opinion.longest, opinion.left_out_s
        if (
            starved(left_out_s, len(rows), now - self._probed_at, self._rate)
            and said.columns[COST, forgotten] <= PROBE_COST * least
        ):
            cost, because = _first(cost, forgotten), PROBE
            propensity = np.where(np.arange(len(rows)) == forgotten, 1.0, 0.0)
            memo.probe, memo.weight = True, 0.0
        elif self._rng.random() < explored:
            cost, because = _first(cost, int(self._rng.choice(np.flatnonzero(cost <= within)))), EXPLORATION
        return Scores(cost, reasons, propensity, "model", because, memo)

    def _by_rule(self, request: Request, rows: Rows, now: float) -> Scores:
        """While there is no model."""
        rule, reason = self.rule.score(request, rows, now), self.learner.guard.why(BY_RULE)
        memo = _Pick(
            self.learner.predict(request, rows, now), None, BY_RULE, 0, reason, self.learner.lengths.mean(request)
        )
        return Scores(_where_it_fits(rule.cost, request, rows), rule.reasons, None, "rule", reason.value, memo)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        self.rule.picked(request, rows, row, now)

    def ensure(self, capacity: int) -> None:
        self.learner.ensure(capacity)

    def reserved(
        self, flight: int, request: Request, rows: Rows, row: int, scores: Scores, propensity: float, now: float
    ) -> None:
        pick = scores.memo
        if not isinstance(pick, _Pick) or pick.foresight is None:
            return
        learner = self.learner
        learner.placed(request, rows, row, pick.output_tokens, now)
        learner.reserved(
            flight,
            request,
            rows,
            row,
            pick.foresight,
            by=pick.by,
            propensity=propensity,
            weight=pick.weight,
            now=now,
            tried=scores.because in TRIED,
        )
        learner.guard.picked(pick.reason)
        keep = math.exp(min(0.0, self._rate_at - now) / 60.0)
        self._rate, self._rate_at = self._rate * keep + 1 / 60.0, now
        if pick.probe:
            self._probed_at = now
        if pick.said is not None:
            learner.saw_queue(pick.said)
            self.congestion.placed(float(pick.said.prefill_ms[row]), now)
            if pick.by == BY_MODEL:
                self.balance.picked(pick.said.decode_ms, row, pick.ruled)
        # The decision log keeps scores for long.
        pick.foresight = pick.said = None

    def first_byte(self, flight: int, ttft_s: float, now: float) -> None:
        self.learner.first_byte(flight, ttft_s, now)

    def ended(self, flight: int, facts: Facts | None, now: float) -> None:
        if facts is None or facts.status != 200:
            self.learner.dropped(flight)
        elif not facts.streamed and facts.ttft_s is not None:
            self.learner.answered(flight, facts.ttft_s, facts.completion_tokens, now)
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
            output_tokens=self.learner.lengths.mean(request),
            decode_weight=self.balance.weight if self._marginal else 0.0,
            congestion=self.congestion.factor(endpoints, now) if self._marginal else 0.0,
            weights=self._weights,
            slo_ttft_ms=slo_ttft if hints.slo_ttft_ms is None else hints.slo_ttft_ms,
            slo_tpot_ms=SLO_TPOT_MS if hints.slo_tpot_ms is None else hints.slo_tpot_ms,
            spread=self.learner.spread,
        )


class _Pick(msgspec.Struct):
    """Between scoring and reserving."""

    foresight: Foresight | None
    said: Judgement | None
    by: int
    ruled: int
    reason: Reason
    output_tokens: float
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


def _where_it_fits(rule_cost: Column, request: Request, rows: Rows) -> Column:
    """The rule's costs without endpoints that would refuse the prompt, as long as one is left that it did not drop."""
    cost = np.where(too_small(rows, request.prompt_tokens), np.inf, rule_cost)
    return cost if np.isfinite(cost).any() else rule_cost


def _first(cost: Column, row: int) -> Column:
    """The same costs, but for `row` being the least."""
    changed = cost.copy()
    changed[row] = np.minimum.reduce(cost) - 1.0
    return changed
