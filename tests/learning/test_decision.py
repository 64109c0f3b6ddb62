"""What a pick costs: its own latency, and what it lays on others. Engines here take 20 ms a request and 50 ms per
thousand new or queued tokens; a step takes 8 ms, half a ms per request and 40 ms per million tokens of context."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from toy_model import toy_model

from picker.learning.decision import Balance, Congestion, Judgement, Stakes, Weights, judge, missed
from picker.learning.features import features
from picker.learning.model import estimate
from picker.policies.example import example_request, example_rows

PROMPT = 1000.0
ALONE = Stakes(prompt_tokens=PROMPT, output_tokens=100.0, decode_weight=0.0, congestion=0.0)
SHARING = replace(ALONE, decode_weight=0.1, congestion=1.0)


def judged(
    stakes: Stakes = SHARING,
    /,
    chance: Sequence[float] | None = None,
    correction: Sequence[float] | None = None,
    **columns: Sequence[float],
) -> Judgement:
    rows = example_rows(example_request(PROMPT), **columns)
    n = len(rows)
    known = features(rows, PROMPT, np.zeros(n))
    model = toy_model()
    said = estimate(model, known, rows.hardware)
    slower = np.zeros((2, n)) if correction is None else np.tile(correction, (2, 1))
    return judge(model, said, known, rows, slower, np.zeros(n) if chance is None else np.array(chance), stakes)


class TestCost:
    def test_alone_a_pick_costs_its_own_ttft(self) -> None:
        said = judged(ALONE, batch=[0, 0], hit_tokens=[0, 800], queued_tokens=[4000, 0])
        assert said.cost == pytest.approx([20 + 50 + 200, 20 + 10])
        assert said.cost == pytest.approx(said.ttft_ms)

    def test_every_answer_there_waits_for_the_prefill_and_takes_longer_for_each_token_left(self) -> None:
        said = judged(batch=[0, 10])
        step = 0.5 + 40 * (PROMPT + 50) / 1e6
        own = 100 * (8 + 0.5 * np.array([0, 10]) + 40 * PROMPT / 1e6)
        assert said.decode_ms == pytest.approx(own + np.array([0, 10]) * (50 * step + 50))
        assert said.cost == pytest.approx(said.ttft_ms + 0.1 * said.decode_ms)

    def test_requests_still_in_prefill_are_not_slowed_in_decoding(self) -> None:
        decoding, prefilling = judged(batch=[6, 6], prefilling=[0, 6]).decode_ms
        assert prefilling < decoding

    def test_eviction_costs_the_prefill_that_others_will_repeat(self) -> None:
        said = judged(chance=[0.0, 0.5], batch=[0, 0])
        assert said.eviction_ms == pytest.approx([0.0, 0.5 * 1.1 * 50])
        assert said.cost[1] - said.cost[0] == pytest.approx(said.eviction_ms[1])

    def test_what_is_cached_there_evicts_nobody(self) -> None:
        some, all_of_it = judged(chance=[1.0, 1.0], hit_tokens=[0.0, 999.0]).eviction_ms
        assert all_of_it < 0.15 * some

    def test_an_engine_that_cannot_hold_the_prompt_is_no_choice(self) -> None:
        said = judged(kv_tokens=[PROMPT, PROMPT - 1, 0])
        assert np.isinf(said.cost).tolist() == [False, True, False]

    def test_a_crowded_pool_weighs_eviction_more(self) -> None:
        free = judged(chance=[0.5], batch=[0])
        crowded = judged(replace(SHARING, congestion=10.0), chance=[0.5], batch=[0])
        assert crowded.cost[0] - free.cost[0] == pytest.approx(9 * free.eviction_ms[0])

    def test_a_slower_endpoint_lays_more_on_others_too(self) -> None:
        usual = judged(chance=[0.5], batch=[4])
        slow = judged(chance=[0.5], batch=[4], correction=[math.log(2)])
        for column in ("ttft_ms", "tpot_ms", "prefill_ms", "eviction_ms", "decode_ms"):
            assert getattr(slow, column) == pytest.approx(2 * getattr(usual, column))

    @given(st.data())
    def test_more_work_there_never_costs_less(self, data: st.DataObject) -> None:
        loads = {
            "queued_tokens": 1e6,
            "batch": 500.0,
            "decode_tokens": 1e6,
            "queued_prompts": 1e6,
            "queued_work": 1e10,
        }
        less = {name: data.draw(st.floats(0, most), name) for name, most in loads.items()}
        more = {name: less[name] + data.draw(st.floats(0, loads[name]), name) for name in loads}
        hit = data.draw(st.floats(0, PROMPT))
        chance = data.draw(st.floats(0, 1))
        said = judged(
            chance=[chance, min(1.0, chance + data.draw(st.floats(0, 1)))],
            hit_tokens=[hit, hit * data.draw(st.floats(0, 1))],
            kv_tokens=[1e5, 1e5],
            **{name: [less[name], more[name]] for name in loads},
        )
        assert said.cost[0] <= said.cost[1] * (1 + 1e-9)
        assert np.isfinite(said.cost).all()


class TestRewards:
    def test_tpot_prefers_the_small_batch_and_ttft_the_short_queue(self) -> None:
        columns = {"batch": [20, 0], "queued_tokens": [0, 5000]}
        assert judged(ALONE, **columns).cost.argmin() == 0
        assert judged(replace(ALONE, weights=Weights(0.0, 1.0)), **columns).cost.argmin() == 1

    def test_e2e_is_the_first_token_and_all_that_follow(self) -> None:
        said = judged(replace(ALONE, weights=Weights(1.0, 1.0)), batch=[3])
        assert said.cost == pytest.approx(said.ttft_ms + 100 * said.tpot_ms)

    def test_a_missed_objective_costs_what_it_is_worth(self) -> None:
        stakes = replace(ALONE, weights=Weights(0.0, 0.0, 1000.0), slo_ttft_ms=200.0)
        met, missed_surely = judged(stakes, queued_tokens=[0, 1e5], batch=[0, 0]).cost
        assert met < 30.0
        assert missed_surely == pytest.approx(1000.0, rel=0.01)


class TestMissed:
    LIMITS = replace(ALONE, slo_ttft_ms=200.0, slo_tpot_ms=20.0, spread=0.3)

    def chance(self, ttft_ms: float, tpot_ms: float, stakes: Stakes = LIMITS) -> float:
        return float(missed(np.array([ttft_ms]), np.array([tpot_ms]), stakes)[0])

    def test_a_prediction_at_the_limit_is_missed_half_the_time(self) -> None:
        assert self.chance(200.0, 0.1) == pytest.approx(0.5, abs=0.01)
        assert self.chance(0.1, 20.0) == pytest.approx(0.5, abs=0.01)
        assert self.chance(200.0, 20.0) == pytest.approx(0.75, abs=0.01)

    @pytest.mark.parametrize("sigmas", [-2.0, -1.0, 0.5, 1.5])
    def test_errors_are_normal_in_log(self, sigmas: float) -> None:
        normal = 0.5 * (1 + math.erf(sigmas / math.sqrt(2)))
        assert self.chance(200.0 * math.exp(0.3 * sigmas), 0.1) == pytest.approx(normal, abs=0.011)

    def test_without_an_objective_nothing_is_missed(self) -> None:
        assert self.chance(1e9, 1e9, ALONE) == 0.0

    @given(st.floats(0, 1e300), st.floats(0, 1e300), st.floats(0, 10))
    def test_it_is_a_probability(self, ttft_ms: float, tpot_ms: float, spread: float) -> None:
        assert 0.0 <= self.chance(ttft_ms, tpot_ms, replace(self.LIMITS, spread=spread)) <= 1.0


class TestBalance:
    SMALL_OR_LARGE = np.array([100.0, 300.0])

    def test_picks_that_slow_decoding_more_than_the_rules_raise_the_weight(self) -> None:
        balance = Balance(0.1)
        for _ in range(100):
            balance.picked(self.SMALL_OR_LARGE, chosen=1, rule=0)
        assert balance.weight > 0.1

    def test_picks_that_slow_it_less_give_the_weight_back(self) -> None:
        balance = Balance(0.1)
        for _ in range(100):
            balance.picked(self.SMALL_OR_LARGE, chosen=0, rule=1)
        assert balance.weight < 0.1

    def test_the_rules_own_choice_changes_nothing(self) -> None:
        balance = Balance(0.1)
        balance.picked(self.SMALL_OR_LARGE, chosen=1, rule=1)
        assert balance.weight == 0.1

    def test_it_settles_where_picks_slow_decoding_as_the_rules_do(self) -> None:
        """A pick takes the larger batch where the weight is too low for it to matter, at random near the middle."""
        balance, rng = Balance(0.5), np.random.default_rng(0)
        for _ in range(20_000):
            larger = rng.random() < 1 / (1 + (balance.weight / 0.2) ** 4)
            balance.picked(self.SMALL_OR_LARGE, chosen=int(larger), rule=int(rng.random() < 0.5))
        assert 0.1 < balance.weight < 0.4
        assert abs(balance.excess) < 0.2

    @given(st.lists(st.tuples(st.floats(), st.floats(), st.integers(0, 1), st.integers(0, 1)), max_size=50))
    def test_it_stays_within_its_bounds_whatever_is_told(self, picks: list[tuple[float, float, int, int]]) -> None:
        balance = Balance()
        for here, there, chosen, rule in picks * 20:
            with np.errstate(over="ignore", invalid="ignore"):
                balance.picked(np.array([here, there]), chosen, rule)
            assert Balance.LEAST <= balance.weight <= Balance.MOST


class TestCongestion:
    def after(self, load: float, endpoints: int = 4, seconds: int = 300) -> float:
        """The factor once each second brought so much prefill per endpoint."""
        congestion = Congestion()
        for second in range(seconds):
            congestion.placed(1000.0 * load * endpoints, float(second))
        return congestion.factor(endpoints, float(seconds))

    def test_an_idle_pool_weighs_work_as_it_is(self) -> None:
        assert Congestion().factor(4, 0.0) == 1.0

    @pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
    def test_a_millisecond_of_work_delays_everybody_by_one_over_what_is_free(self, load: float) -> None:
        assert self.after(load) == pytest.approx(1 / (1 - load), rel=0.05)

    def test_the_first_seconds_are_counted_as_what_they_are(self) -> None:
        assert self.after(0.5, seconds=5) == pytest.approx(2.0, rel=0.15)

    @pytest.mark.parametrize("load", [1.0, 5.0, 1e6])
    def test_it_is_bounded(self, load: float) -> None:
        assert self.after(load) == Congestion.MOST

    def test_it_fades_by_the_minute(self) -> None:
        congestion = Congestion()
        for second in range(300):
            congestion.placed(3200.0, float(second))
        assert congestion.factor(4, 300.0) > 4
        assert congestion.factor(4, 600.0) == pytest.approx(1.0, abs=0.02)

    def test_no_single_prefill_is_believed_to_take_for_ever(self) -> None:
        congestion = Congestion()
        for absurd in (1e30, math.inf, math.nan, -1e30):
            congestion.placed(absurd, 0.0)
            assert 1.0 <= congestion.factor(4, 1.0) <= Congestion.MOST
        assert congestion.factor(4, 600.0) < 1.1

    def test_nobody_is_congested_where_nobody_is(self) -> None:
        assert Congestion().factor(0, 1.0) == 1.0
