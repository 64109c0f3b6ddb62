"""Who decides, why, and when that changes."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from picker.learning.experience import BY_MODEL, BY_RULE
from picker.learning.guard import TRANSITIONS_KEPT, Guard, Mode, Outcome, Reason, accept
from picker.learning.guard_settings import GuardSettings

GOOD = Outcome(BY_MODEL, log_ttft=6.0, log_predicted=6.1, log_baseline=6.4, log_expected=6.0, weight=1.0)
WRONG = replace(GOOD, log_predicted=7.0)
STAY_S = GuardSettings().stay_s
PREFILL_MS = 80.0


class Service:
    """A guard fed with 20 finished picks a second."""

    def __init__(self, seed: int = 0, *, in_charge: bool = True) -> None:
        self.guard, self.now, self.rng = Guard(), 0.0, np.random.default_rng(seed)
        if in_charge:
            self.guard.model(True, self.now)
            self.finish(60)
            assert self.guard.mode is Mode.LEARNED

    def finish(self, rows: int, outcome: Outcome = GOOD) -> None:
        """Rows that are all alike."""
        for _ in range(rows):
            self.now += 0.05
            self.guard.observe(outcome, self.now)

    def live(self, rows: int, model_worse_by: float) -> list[int]:
        """Picks drawn as the guard says, with residuals of standard deviation .3; rows at which the reason changed."""
        changes = []
        for row in range(rows):
            by = self.guard.draw(self.rng)
            weight, before = 1 / self.guard.propensity(by), self.guard.reason
            log_ttft = 6.0 + self.rng.normal(0, 0.3) + model_worse_by * by
            self.finish(1, Outcome(by, log_ttft, log_ttft + 0.1, log_ttft + 0.4, 6.0, weight))
            if self.guard.reason is not before:
                changes.append(row)
        return changes

    def queue(self, prefills: list[float]) -> None:
        """A look a second at queues that are equally long everywhere."""
        for wait in prefills:
            self.now += 1.0
            self.guard.pool(self.now, np.full(8, wait * PREFILL_MS), PREFILL_MS)


class TestCold:
    def test_the_rule_decides_before_there_is_a_model(self) -> None:
        service = Service(in_charge=False)
        service.finish(1000)
        assert (service.guard.mode, service.guard.reason) == (Mode.RULE, Reason.COLD)

    def test_the_model_takes_over_at_the_fiftieth_row(self) -> None:
        service = Service(in_charge=False)
        service.guard.model(True, 0.0)
        service.finish(49)
        assert service.guard.reason is Reason.COLD
        service.finish(1)
        assert service.guard.mode is Mode.LEARNED

    def test_a_model_has_to_predict_before_it_decides(self) -> None:
        service = Service(in_charge=False)
        service.finish(100, replace(GOOD, log_predicted=math.nan))
        service.guard.model(True, service.now)
        service.finish(19)
        assert service.guard.reason is Reason.COLD
        service.finish(1)
        assert service.guard.mode is Mode.LEARNED

    def test_a_bad_model_never_takes_over(self) -> None:
        service = Service(in_charge=False)
        service.guard.model(True, 0.0)
        service.finish(60, WRONG)
        assert service.guard.reason is Reason.ERROR

    def test_a_proven_model_decides_from_the_first_pick_on(self) -> None:
        guard = Guard()
        guard.model(True, 0.0, proven=True)
        assert guard.mode is Mode.LEARNED
        guard.model(True, 5.0)
        assert guard.mode is Mode.LEARNED

    def test_without_its_model_the_rule_decides_at_once(self) -> None:
        service = Service()
        service.guard.model(False, service.now)
        assert service.guard.reason is Reason.COLD


class TestError:
    def test_predictions_no_better_than_the_baselines_hand_over(self) -> None:
        service = Service()
        service.finish(100, WRONG)
        assert (service.guard.mode, service.guard.reason) == (Mode.RULE, Reason.ERROR)

    def test_nonsense_is_the_worst_prediction(self) -> None:
        service = Service()
        service.finish(20, replace(GOOD, log_predicted=math.inf))
        assert service.guard.reason is Reason.ERROR

    def test_a_model_between_both_bars_keeps_what_it_has(self) -> None:
        between = replace(GOOD, log_predicted=GOOD.log_ttft + 0.9 * (GOOD.log_baseline - GOOD.log_ttft))
        trusted, distrusted = Service(), Service()
        distrusted.finish(300, WRONG)
        for service in (trusted, distrusted):
            service.finish(3000, between)
        assert trusted.guard.mode is Mode.LEARNED
        assert distrusted.guard.reason is Reason.ERROR

    def test_a_model_that_recovers_gets_back_after_its_stay(self) -> None:
        service = Service()
        service.finish(100, WRONG)
        tripped_at = service.guard.transitions[-1].at_s
        service.finish(2000)
        back = service.guard.transitions[-1]
        assert back.now is Reason.NONE
        assert back.at_s - tripped_at >= STAY_S


class TestCanary:
    def test_equals_stay_with_the_model(self) -> None:
        assert not any(Service(seed).live(5000, 0.0) for seed in range(3))

    @pytest.mark.parametrize(("worse", "rows"), [(math.log(1.2), 8000), (math.log(2), 1200)])
    def test_a_worse_model_hands_over(self, worse: float, rows: int) -> None:
        for seed in range(3):
            service = Service(seed)
            assert service.live(rows, worse)
            assert service.guard.reason is Reason.CANARY
            assert service.guard.transitions[-1].numbers["canary_z"] >= 3.25

    def test_a_model_that_improves_gets_back(self) -> None:
        service = Service()
        service.live(1200, 0.7)
        assert service.guard.reason is Reason.CANARY
        service.live(6000, -0.2)
        assert service.guard.mode is Mode.LEARNED

    def test_a_model_that_stays_worse_stays_out(self) -> None:
        service = Service()
        service.live(1200, 0.3)
        assert service.guard.reason is Reason.CANARY
        assert not service.live(8000, 0.3)

    def test_more_is_left_to_the_rule_while_little_is_known(self) -> None:
        service = Service()
        assert service.guard.propensity(BY_RULE) == pytest.approx(0.05)
        service.live(4000, -0.1)
        assert service.guard.propensity(BY_RULE) == pytest.approx(0.02)

    def test_little_is_left_to_a_model_that_is_not_in_charge_and_nothing_while_cold(self) -> None:
        service = Service()
        service.finish(100, WRONG)
        assert service.guard.propensity(BY_MODEL) == pytest.approx(0.02)
        assert Guard().propensity(BY_MODEL) == 0.0

    def test_rows_of_another_time_are_not_compared(self) -> None:
        service = Service(in_charge=False)
        service.guard.model(True, 0.0)
        service.finish(49)
        cold = service.guard.numbers["canary_rows_model"]
        service.finish(301)
        service.finish(100, WRONG)
        handed_over = service.guard.transitions[-1]
        assert (cold, handed_over.now) == (0.0, Reason.ERROR)
        service.finish(1, WRONG)
        assert handed_over.numbers["canary_rows_model"] > 200
        assert service.guard.numbers["canary_rows_model"] <= 100
        while service.guard.mode is Mode.RULE:
            service.finish(1)
        assert service.guard.numbers["canary_rows_model"] == 0.0

    def test_no_single_row_outweighs_the_others(self) -> None:
        service = Service()
        service.finish(1000)
        service.finish(1, replace(GOOD, weight=1e9))
        assert service.guard.numbers["canary_rows_model"] > 50

    def test_picks_that_no_draw_decided_are_not_compared(self) -> None:
        service = Service()
        service.finish(500, replace(GOOD, by=BY_RULE, weight=0.0))
        assert service.guard.numbers["canary_rows_rule"] == 0.0

    def test_a_row_weighs_by_how_unlikely_its_arm_was(self) -> None:
        service = Service()
        service.finish(100)
        service.finish(10, replace(GOOD, log_ttft=7.0, log_predicted=7.1, log_baseline=7.4, weight=10.0))
        assert service.guard.numbers["canary_difference"] > 0.45

    def test_the_next_verdict_needs_rows_of_its_own(self) -> None:
        """One against the model, then, during its stay, one for it: each soon after the thirtieth row of both."""
        service, rows = Service(), []
        for worse in [1.0] * 31 + [0.0] * 33:
            service.finish(1, replace(GOOD, log_ttft=6.0 + worse, log_predicted=6.1 + worse, log_baseline=6.4 + worse))
            service.finish(1, replace(GOOD, by=BY_RULE))
            rows.append(service.guard.numbers["canary_rows_rule"])
        assert service.guard.reason is Reason.CANARY
        assert max(rows) < 32
        assert rows[-1] < 5

    def test_draws_have_the_announced_probability(self) -> None:
        guard, rng = Service().guard, np.random.default_rng(0)
        by_rule = sum(guard.draw(rng) == BY_RULE for _ in range(4000))
        assert by_rule / 4000 == pytest.approx(guard.propensity(BY_RULE), abs=0.01)


class TestSaturated:
    def test_queues_that_grow_everywhere_hand_over(self) -> None:
        service = Service()
        service.queue([float(second) for second in range(15)])
        assert service.guard.reason is Reason.SATURATED

    def test_the_model_is_back_when_queues_are_short(self) -> None:
        service = Service()
        service.queue([float(second) for second in range(15)])
        service.queue([0.5] * 40)
        assert service.guard.mode is Mode.LEARNED


class TestPoisoned:
    def test_a_stream_of_insane_rows_hands_over_until_it_is_clean(self) -> None:
        service = Service()
        service.guard.inspect(100, 0, service.now)
        service.guard.inspect(100, 50, service.now)
        assert service.guard.reason is Reason.POISONED
        service.guard.inspect(1000, 0, service.now + STAY_S)
        assert service.guard.mode is Mode.LEARNED

    def test_a_few_rows_are_no_stream(self) -> None:
        service = Service()
        service.guard.inspect(10, 10, service.now)
        assert service.guard.mode is Mode.LEARNED

    def test_one_lying_engine_of_many_is_not_the_stream(self) -> None:
        service = Service()
        for _ in range(100):
            service.guard.inspect(64, 4, service.now)
        assert service.guard.mode is Mode.LEARNED


class TestHandOver:
    def test_there_is_one_reason_the_gravest(self) -> None:
        service = Service()
        service.finish(100, WRONG)
        service.guard.inspect(100, 100, service.now)
        before = service.guard.reason
        service.guard.inspect(1000, 0, service.now)
        assert (before, service.guard.reason) == (Reason.POISONED, Reason.ERROR)

    def test_each_relapse_doubles_the_stay_up_to_a_cap(self) -> None:
        service, stays, tripped_at = Service(), [], 0.0
        while service.now < 20_000:
            service.now += 1.0
            service.finish(1, WRONG if service.guard.mode is Mode.LEARNED else GOOD)
            last = service.guard.transitions[-1]
            if last.now is Reason.ERROR:
                tripped_at = last.at_s
            elif tripped_at:
                stays.append(last.at_s - tripped_at)
                tripped_at = 0.0
        expected = [min(STAY_S * 2**relapse, GuardSettings().longest_stay_s) for relapse in range(len(stays))]
        assert 8 <= len(stays) <= 20
        assert stays == pytest.approx(expected, abs=2.0)

    def test_a_long_time_without_relapse_is_remembered_in_its_favour(self) -> None:
        service = Service()
        for _ in range(3):
            service.finish(100, WRONG)
            service.finish(6000)
        service.finish(100, WRONG)
        tripped_at = service.guard.transitions[-1].at_s
        service.finish(2000)
        assert service.guard.transitions[-1].at_s - tripped_at == pytest.approx(STAY_S, abs=2.0)

    def test_transitions_tell_when_why_and_by_what_numbers(self) -> None:
        service = Service()
        service.finish(100, WRONG)
        last = service.guard.transitions[-1]
        assert (last.was, last.now) == (Reason.NONE, Reason.ERROR)
        assert last.numbers["error_ratio"] >= 0.95
        assert 3.0 < last.at_s <= service.now

    def test_only_the_latest_transitions_are_kept(self) -> None:
        guard = Guard()
        for i in range(200):
            guard.model(i % 2 == 0, float(i), proven=True)
        assert len(guard.transitions) == TRANSITIONS_KEPT
        assert guard.transitions[-1].at_s == 199.0


class TestReasonsOfPicks:
    def test_each_pick_is_counted_once_under_the_reason_for_who_decided(self) -> None:
        guard = Service().guard
        made = [guard.why(BY_MODEL), guard.why(BY_RULE), guard.why(BY_MODEL, outside=True)]
        for reason in made:
            guard.picked(reason)
        assert made == [Reason.NONE, Reason.SLICE, Reason.OUT_OF_RANGE]
        assert {reason: count for reason, count in guard.counts.items() if count} == dict.fromkeys(made, 1)

    def test_the_rules_picks_have_the_reason_that_it_is_in_charge_for(self) -> None:
        guard = Guard()
        assert guard.why(BY_RULE) is Reason.COLD
        service = Service()
        service.finish(100, WRONG)
        assert service.guard.why(BY_RULE) is Reason.ERROR
        assert service.guard.why(BY_MODEL) is Reason.SLICE


class TestHostile:
    numbers = st.floats() | st.floats(-10, 10)

    @settings(max_examples=50)
    @example([(True, math.inf, 0.0, math.inf, 0.0, 1.0)] * 4)
    @given(st.lists(st.tuples(st.booleans(), numbers, numbers, numbers, numbers, st.floats(0, 10)), max_size=20))
    def test_whatever_comes_there_is_one_reason_and_the_numbers_are_finite(
        self, rows: list[tuple[bool, float, float, float, float, float]]
    ) -> None:
        guard, now = Guard(GuardSettings(cold_rows=2, cold_predictions=2, canary_fewest=2.0)), 0.0
        guard.model(True, now)
        for by, ttft, predicted, baseline, expected, step in rows:
            now += step
            guard.observe(Outcome(int(by), ttft, predicted, baseline, expected, 2.0), now)
            guard.inspect(len(rows), int(by), now)
            guard.pool(now, np.array([ttft, predicted]), baseline)
            assert all(math.isfinite(number) for number in guard.numbers.values())
            assert (guard.mode is Mode.LEARNED) == (guard.reason is Reason.NONE)
            assert guard.propensity(BY_RULE) + guard.propensity(BY_MODEL) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        "changes",
        [
            {"canary_share": 0.0},
            {"canary_share": 0.2},
            {"wary_share": 0.6},
            {"error_release": 1.0},
            {"insane_release": 0.3},
            {"stay_s": math.nan},
            {"stay_s": 9999.0},
            {"error_rows": 1.0},
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"guard|share|windows"):
            GuardSettings(**changes)


class TestAccept:
    @pytest.mark.parametrize(("candidate", "accepted"), [(0.9, True), (1.05, True), (1.2, False), (math.nan, False)])
    def test_a_new_model_may_be_a_tenth_worse_on_the_latest_rows(self, candidate: float, accepted: bool) -> None:
        current = np.array([0.2, -0.1, 0.3])
        assert accept(candidate * current, current) is accepted

    def test_no_rows_speak_against_nobody(self) -> None:
        assert accept(np.empty(0), np.empty(0))

    def test_anything_is_better_than_a_model_that_says_nonsense(self) -> None:
        assert accept(np.array([0.5]), np.array([math.inf]))
