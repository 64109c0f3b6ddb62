"""How many picks become rows, whose, and what is still learned at rates of which few do."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import toy_model

from picker.learning.experience import BY_MODEL, BY_RULE
from picker.learning.guard import Guard, Reason
from picker.learning.guard_settings import GuardSettings
from picker.learning.learner import Learner
from picker.learning.thinning import ROWS_PER_S, Thinning
from picker.policies.example import example_request, example_rows
from picker.policies.learned import EXPLORATION, Learned, Params

REQUEST = example_request(1000.0)
FEW = 4


def kept(thinning: Thinning, per_s: float, begin_s: float, end_s: float, endpoints: int = FEW) -> int:
    """Of picks that come evenly."""
    count = round((end_s - begin_s) * per_s)
    return sum(thinning.keeps(thinning.chance(endpoints, begin_s + i / per_s)) for i in range(count))


class TestHowMany:
    @given(st.floats(0.1, 0.98 * ROWS_PER_S))
    @settings(max_examples=20)
    def test_all_below_the_rate(self, per_s: float) -> None:
        thinning = Thinning()
        kept(thinning, per_s, 0.0, 30.0)
        assert thinning.skipped == 0

    def test_all_of_a_burst_amid_little(self) -> None:
        thinning = Thinning()
        kept(thinning, 20.0, 0.0, 30.0)
        assert all(thinning.keeps(thinning.chance(FEW, 30.0)) for _ in range(300))

    @given(st.floats(2 * ROWS_PER_S, 50 * ROWS_PER_S))
    @settings(max_examples=10)
    def test_about_the_rate_above_it_and_the_others_are_counted(self, per_s: float) -> None:
        thinning = Thinning()
        kept(thinning, per_s, 0.0, 20.0)
        before = thinning.skipped
        rows = kept(thinning, per_s, 20.0, 30.0)
        assert rows == pytest.approx(10 * ROWS_PER_S, rel=0.15)
        assert thinning.skipped - before == round(10 * per_s) - rows

    def test_one_a_second_for_each_endpoint_of_a_large_pool(self) -> None:
        thinning = Thinning()
        kept(thinning, 3000.0, 0.0, 20.0, endpoints=1000)
        assert kept(thinning, 3000.0, 20.0, 25.0, endpoints=1000) == pytest.approx(5000, rel=0.1)

    def test_all_again_soon_after_a_rush(self) -> None:
        thinning = Thinning()
        kept(thinning, 1000.0, 0.0, 20.0)
        assert kept(thinning, 20.0, 20.0, 35.0) >= 150
        assert kept(thinning, 20.0, 35.0, 45.0) == 200

    def test_the_same_ones_of_the_same_picks(self) -> None:
        assert kept(Thinning(), 1000.0, 0.0, 10.0) == kept(Thinning(), 1000.0, 0.0, 10.0)

    @given(st.lists(st.floats(0.0, 1e9)))
    def test_a_chance_is_one_whatever_the_clock_says(self, times: list[float]) -> None:
        thinning = Thinning()
        assert all(0.0 < thinning.chance(FEW, now) <= 1.0 for now in times)


@dataclass(slots=True)
class Answer:
    """What became of a request."""

    ttft_s: float | None
    tpot_s: float | None = 0.01
    status: int = 200
    streamed: bool = True
    completion_tokens: int | None = 20


def rush(policy: Learned, seconds: float, ttft_s: Callable[[int], float], per_s: float = 1000.0) -> list[str]:
    """Requests of which each endpoint has `batch` its number, answered at once; why each was decided."""
    rows, reasons = example_rows(REQUEST, batch=[0.0, 1.0, 2.0, 3.0]), []
    for flight in range(round(seconds * per_s)):
        now = (flight + 1) / per_s
        scores = policy.score(REQUEST, rows, now)
        row = int(scores.cost.argmin())
        assert scores.propensity is not None
        policy.reserved(flight, REQUEST, rows, row, scores, float(scores.propensity[row]), now)
        policy.ended(flight, Answer(ttft_s(row)), now)
        reasons.append(scores.because)
    return reasons


def in_charge(exploration: float = 0.0) -> Learned:
    policy = Learned(Params(exploration=exploration), np.random.default_rng(0))
    policy.learner.adopt(toy_model(), 0.0, proven=True)
    return policy


class TestWhose:
    def test_of_what_was_explored_every_pick(self) -> None:
        policy = in_charge(exploration=0.2)
        reasons = rush(policy, 3.0, lambda row: 0.07)
        explored = {(i + 1) / 1000 for i, reason in enumerate(reasons) if reason == EXPLORATION}
        rows = set(policy.learner.drain(3.0)["at_s"].tolist())
        assert policy.learner.skipped > 500
        assert explored
        assert explored <= rows

    def test_of_each_endpoint_as_many_as_of_any_other(self) -> None:
        learner, rows = Learner(), example_rows(REQUEST, batch=[0.0] * FEW)
        learner.adopt(toy_model(), 0.0)
        said, made = learner.predict(REQUEST, rows, 0.0), [0, 0, 0, 1, 1, 2]
        for flight in range(30_000):
            row, now = made[flight % 6], flight / 3000
            learner.reserved(flight, REQUEST, rows, row, said, by=BY_RULE, propensity=0.5, weight=1.0, now=now)
            learner.ended(flight, 0.07, 0.01, 20, now)
        drained = learner.drain(10.0)
        numbers = {learner.number(slot): slot for slot in range(3)}
        shares = Counter(numbers[number] for number in drained["endpoint"].tolist())
        assert [shares[slot] / len(drained) for slot in range(3)] == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.05)


class TestWhatIsStillLearned:
    def test_the_guard_has_a_model_of_wrong_predictions_out_within_seconds(self) -> None:
        policy = in_charge()
        policy.learner.adopt(toy_model(ttft={"one": 200.0, "batch": 500.0}), 0.0, proven=True)
        rng = np.random.default_rng(0)
        rush(policy, 4.0, lambda row: 0.05 * math.exp(rng.normal(0, 0.05)))
        assert policy.learner.skipped > 1000
        assert policy.learner.guard.counts[Reason.NONE] < 2000

    @pytest.mark.parametrize(("worse", "reason"), [(math.log(2), Reason.CANARY), (0.0, Reason.NONE)])
    def test_the_canary_tells_a_worse_model_from_one_whose_rare_trials_are_bad(
        self, worse: float, reason: Reason
    ) -> None:
        by_canary_alone = GuardSettings(error_trip=1e9, error_release=1e9)
        learner, rows, rng = (
            Learner(Guard(by_canary_alone)),
            example_rows(REQUEST, batch=[0.0]),
            np.random.default_rng(0),
        )
        learner.adopt(toy_model(), 0.0, proven=True)
        said, guard = learner.predict(REQUEST, rows, 0.0), learner.guard
        for flight in range(30_000):
            now, by = flight / 1000, guard.draw(rng)
            tried, weight = by == BY_MODEL and flight % 50 == 0, 1 / guard.propensity(by)
            learner.reserved(flight, REQUEST, rows, 0, said, by=by, propensity=1.0, weight=weight, now=now, tried=tried)
            learner.ended(flight, 0.07 * math.exp(rng.normal(0, 0.1) + worse * by + 0.7 * tried), None, 20, now)
            if guard.reason is not Reason.NONE:
                break
        assert guard.reason is reason

    def test_an_endpoint_that_slows_down_is_known_for_it(self) -> None:
        learner, rows = Learner(), example_rows(REQUEST, batch=[0.0] * FEW)
        learner.adopt(toy_model(), 0.0)
        said = learner.predict(REQUEST, rows, 0.0)
        for flight in range(16_000):
            now = flight / 1000
            slow = flight % FEW == 0 and now >= 10.0
            learner.reserved(flight, REQUEST, rows, flight % FEW, said, by=BY_RULE, propensity=0.5, weight=1.0, now=now)
            learner.ended(flight, 0.21 if slow else 0.07, 0.01, 20, now)
        assert [number for number, _ in learner.forgotten] == [learner.number(0)]
        assert learner.corrections.by_slot[0, 0] > math.log(2)
        assert abs(learner.corrections.by_slot[0, 1]) < 0.1
