"""Who decided, with what result, and what the trainer did: as metrics and as JSON."""

import numpy as np
import pytest
from test_decisions_watched import ADDRESSES

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import Router
from picker.telemetry.learning import RECENT_S, LearningMetrics, LoopState


class Told:
    """A policy that is told who decides."""

    name = "told"
    by, because = "rule", "cold"

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        return Scores(np.zeros(len(rows)), by=self.by, because=self.because)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass


class Watched:
    """A router with a told policy, under metrics."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.now, self.policy = 100.0, Told()
        self.metrics = LearningMetrics(LoopState(), lambda: self.now)
        hits = PrefixHits(PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0))
        self.router = Router(self.policy, hits, rng, watchers=[self.metrics])
        self.router.update_pool(Endpoint(address) for address in ADDRESSES)

    def serve(self, by: str, because: str, ttft_s: float, times: int = 1) -> None:
        self.policy.by, self.policy.because = by, because
        for _ in range(times):
            decision = self.router.pick(Request(model="m", prompt_tokens=10.0), None, self.now)
            self.router.ended(decision.flight, Outcome(status=200, ttft_s=ttft_s, complete=True))

    def samples(self) -> dict[str, float]:
        return {
            ":".join((sample.name, *sample.labels.values())): sample.value
            for metric in self.metrics.collect()
            for sample in metric.samples
        }


def test_picks_are_counted_by_who_decided_and_why() -> None:
    watched = Watched()
    watched.serve("rule", "cold", 0.1, times=3)
    watched.serve("model", "none", 0.1, times=2)
    found = watched.samples()
    assert found["picker_learned_picks_total:rule:cold"] == 3
    assert found["picker_learned_picks_total:model:none"] == 2


def test_ttft_is_compared_over_picks_whose_decider_was_drawn() -> None:
    watched = Watched()
    watched.serve("rule", "cold", 9.0)
    watched.serve("rule", "out_of_range", 9.0)
    watched.serve("rule", "slice", 0.4, times=2)
    watched.serve("model", "none", 0.2, times=5)
    told = watched.metrics.as_json()["ttft_ms"]
    assert told["rule"] == {"mean": pytest.approx(400.0), "answers": 2}
    assert told["model"] == {"mean": pytest.approx(200.0), "answers": 5}


def test_ttft_is_compared_over_the_same_minute() -> None:
    watched = Watched()
    watched.serve("rule", "error", 9.0)
    watched.now += RECENT_S + 1
    watched.serve("model", "none", 0.2)
    assert watched.metrics.as_json()["ttft_ms"] == {"model": {"mean": pytest.approx(200.0), "answers": 1}}


def test_the_age_of_the_model_counts_from_its_adoption() -> None:
    watched = Watched()
    assert watched.metrics.as_json()["age_s"] is None
    watched.metrics.state.version, watched.metrics.state.adopted_at = 3, 98.5
    assert watched.metrics.as_json()["age_s"] == 1.5
    assert watched.samples()["picker_model_age_seconds"] == 1.5
    assert watched.samples()["picker_model_version"] == 3


def test_rows_that_nobody_learned_from_are_one_number() -> None:
    watched = Watched()
    watched.metrics.state.dropped, watched.metrics.state.overflowed = 3, 4
    assert watched.samples()["picker_learning_dropped_rows_total"] == 7


def test_picks_beyond_as_many_as_are_learned_from_are_counted() -> None:
    watched = Watched()
    watched.metrics.state.skipped = 5
    assert watched.samples()["picker_learning_skipped_picks_total"] == 5
    assert watched.metrics.as_json()["skipped"] == 5
