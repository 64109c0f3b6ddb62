"""The policy `learned`: who decides a pick, what is taken, and what its row will say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_model import toy_model

from picker.engines.rows import Rows
from picker.learning.experience import EXPERIENCE
from picker.learning.features import TREE_FEATURES
from picker.learning.guard import Reason
from picker.learning.model import Model
from picker.policies.example import example_request, example_rows
from picker.policies.learned import Learned, Params
from picker.policies.policy import Scores

REQUEST = example_request(1000.0)
FAST, SLOW = 1, 2
NO_LUCK = Params(exploration=0.0)


@dataclass(slots=True)
class Answer:
    """What became of a request."""

    ttft_s: float | None = 0.1
    tpot_s: float | None = 0.01
    status: int = 200
    streamed: bool = True
    completion_tokens: int | None = 20


def unlike_model() -> Model:
    """Slow hardware takes four times as long."""
    model = toy_model()
    base = model.ttft_base.copy()
    base[SLOW] *= 4
    return replace(model, ttft_base=base)


def in_charge(params: Params = NO_LUCK, model: Model | None = None, seed: int = 0) -> Learned:
    """A policy whose model was in charge before a restart."""
    policy = Learned(params, np.random.default_rng(seed))
    policy.ensure(64)
    policy.learner.adopt(model or unlike_model(), 0.0, proven=True)
    return policy


def by_model(policy: Learned, rows: Rows, now: float = 1.0) -> Scores:
    """The next scores that are not left to the rule for comparison."""
    for _ in range(200):
        scores = policy.score(REQUEST, rows, now)
        if scores.because != "slice":
            return scores
    raise AssertionError("the model never decides")


def finish(policy: Learned, rows: Rows, flight: int, scores: Scores, answer: Answer, now: float = 1.0) -> None:
    row = int(scores.cost.argmin())
    assert scores.propensity is not None
    policy.picked(REQUEST, rows, row, now)
    policy.reserved(flight, REQUEST, rows, row, scores, float(scores.propensity[row]), now)
    policy.ended(flight, answer, now + 1.0)


class TestWhoDecides:
    def test_without_a_model_the_rule_does(self) -> None:
        policy, rows = Learned(Params(), np.random.default_rng(0)), example_rows(REQUEST, batch=[3, 1, 2])
        scores = policy.score(REQUEST, rows, 0.0)
        assert (scores.by, scores.because) == ("rule", "cold")
        assert scores.cost.tolist() == policy.rule.score(REQUEST, rows, 0.0).cost.tolist()

    def test_a_model_that_was_proven_does_from_the_first_request_on(self) -> None:
        scores = by_model(in_charge(), example_rows(REQUEST, batch=[0, 0]))
        assert (scores.by, scores.because) == ("model", "none")

    def test_far_beyond_what_it_was_trained_on_the_rule_does(self) -> None:
        near = np.zeros(len(TREE_FEATURES), np.float32)
        scores = in_charge(model=replace(unlike_model(), lowest=near, highest=near)).score(
            REQUEST, example_rows(REQUEST, batch=[9, 9]), 1.0
        )
        assert (scores.by, scores.because) == ("rule", "out_of_range")

    def test_unless_the_guard_is_left_out(self) -> None:
        near = np.zeros(len(TREE_FEATURES), np.float32)
        policy = in_charge(Params(without=("guard",)), replace(unlike_model(), lowest=near, highest=near))
        assert policy.score(REQUEST, example_rows(REQUEST, batch=[9, 9]), 1.0).by == "model"

    @pytest.mark.parametrize("nonsense", [np.nan, np.inf, -np.inf])
    def test_of_a_model_that_says_no_numbers_no_word_is_followed(self, nonsense: float) -> None:
        model = unlike_model()
        policy = in_charge(model=replace(model, ttft_base=np.full_like(model.ttft_base, nonsense)))
        rows = example_rows(REQUEST, batch=[5, 0, 5], queued_tokens=[900, 0, 900])
        assert all(policy.score(REQUEST, rows, 1.0).cost.argmin() == 1 for _ in range(50))

    def test_a_model_that_cannot_even_be_asked_costs_no_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[3, 1])
        monkeypatch.setattr(policy.learner, "judge", lambda *_: [][0])
        scores = policy.score(REQUEST, rows, 1.0)
        assert (scores.by, scores.because, int(scores.cost.argmin())) == ("rule", "failed", 1)
        policy.reserved(7, REQUEST, rows, 1, scores, 1.0, 1.0)
        policy.ended(7, Answer(), 2.0)
        assert policy.learner.guard.counts[Reason.FAILED] == 1

    def test_some_picks_are_left_to_the_rule_and_say_so(self) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0], hardware=[FAST, SLOW])
        left = [policy.score(REQUEST, rows, 1.0) for _ in range(1000)]
        shares = {scores.because: sum(s.because == scores.because for s in left) / 1000 for scores in left}
        assert set(shares) == {"none", "slice"}
        assert 0.01 < shares["slice"] < 0.1


class TestWhatIsTaken:
    def test_the_faster_engine_though_more_is_queued_there(self) -> None:
        rows = example_rows(REQUEST, hardware=[FAST, SLOW], queued_tokens=[800, 0], prefilling=[1, 0])
        policy = in_charge()
        policy.learner.spread = 0.1
        assert by_model(policy, rows).cost.argmin() == 0

    def test_the_rules_choice_where_predictions_err_by_more_than_it_is_said_to_lose(self) -> None:
        rows = example_rows(REQUEST, hardware=[FAST, SLOW], queued_tokens=[800, 0], prefilling=[1, 0])
        policy = in_charge()
        policy.learner.spread = 0.6
        assert by_model(policy, rows).cost.argmin() == policy.rule.score(REQUEST, rows, 1.0).cost.argmin() == 1

    def test_the_rules_choice_where_little_is_lost_by_it(self) -> None:
        rows = example_rows(REQUEST, hit_tokens=[60, 0], batch=[2, 0])
        policy = in_charge()
        assert policy.rule.score(REQUEST, rows, 1.0).cost.argmin() == 1
        assert by_model(policy, rows).cost.argmin() == 1

    @pytest.mark.parametrize("policy", [in_charge(), Learned(NO_LUCK, np.random.default_rng(0))], ids=["model", "rule"])
    def test_no_engine_whose_cache_is_smaller_than_the_prompt(self, policy: Learned) -> None:
        rows = example_rows(REQUEST, kv_tokens=[999, 1000, 0], batch=[0, 8, 9])
        assert np.isinf(policy.score(REQUEST, rows, 1.0).cost).tolist() == [True, False, False]

    def test_one_of_those_where_there_is_no_other(self) -> None:
        rows = example_rows(REQUEST, kv_tokens=[500, 600])
        assert np.isfinite(in_charge().score(REQUEST, rows, 1.0).cost).any()

    def test_an_endpoint_left_out_for_long_is_probed_once(self) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0, 0], hardware=[FAST, FAST, FAST])
        policy.learner.ensure(64)
        for flight in range(2000):
            now = 1.0 + 0.1 * flight
            two = example_rows(REQUEST, slots=[0, 1])
            scores = policy.score(REQUEST, two, now)
            finish(policy, two, flight, scores, Answer(), now)
        asked = [policy.score(REQUEST, rows, now) for _ in range(50)]
        probes = [scores for scores in asked if scores.because == "probe"]
        assert probes
        assert all(scores.cost.argmin() == 2 for scores in probes)
        finish(policy, rows, 5000, probes[0], Answer(), now)
        assert all(policy.score(REQUEST, rows, now).because != "probe" for _ in range(50))


class TestPropensity:
    @given(
        st.integers(1, 12).flatmap(
            lambda n: st.tuples(
                *[st.lists(st.integers(0, 40), min_size=n, max_size=n) for _ in ("batch", "queued")],
                st.lists(st.integers(0, 1), min_size=n, max_size=n),
            )
        ),
        st.integers(0, 100),
    )
    def test_it_is_a_distribution_in_which_the_choice_has_a_part(
        self, columns: tuple[list[int], list[int], list[int]], seed: int
    ) -> None:
        batch, queued, kinds = columns
        rows = example_rows(REQUEST, batch=batch, queued_tokens=[1000 * q for q in queued], hardware=kinds)
        scores = in_charge(Params(), seed=seed).score(REQUEST, rows, 1.0)
        assert scores.propensity is not None
        assert scores.propensity.sum() == pytest.approx(1.0)
        assert scores.propensity[scores.cost.argmin()] > 0

    def test_it_is_how_often_an_endpoint_comes_first(self) -> None:
        policy = in_charge(Params(exploration=0.1))
        rows = example_rows(REQUEST, hardware=[FAST, FAST, SLOW], batch=[4, 0, 0], hit_tokens=[0, 0, 900])
        draws = [policy.score(REQUEST, rows, 1.0) for _ in range(4000)]
        said = draws[0].propensity
        assert said is not None
        came = np.bincount([int(scores.cost.argmin()) for scores in draws], minlength=3) / 4000
        assert came == pytest.approx(said, abs=0.03)


class TestWhatIsLearnedFrom:
    def test_a_finished_pick_becomes_a_row_of_who_decided_and_what_came(self) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0])
        finish(policy, rows, 7, by_model(policy, rows), Answer(ttft_s=0.2, tpot_s=0.03))
        (row,) = policy.learner.drain(2.0)
        assert row.dtype == EXPERIENCE
        assert (row["ttft_ms"], row["tpot_ms"], row["output_tokens"]) == pytest.approx((200.0, 30.0, 20))
        assert 0 < row["propensity"] <= 1

    def test_a_whole_answer_is_no_slow_first_token(self) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0])
        finish(policy, rows, 7, by_model(policy, rows), Answer(ttft_s=0.9, tpot_s=None, streamed=False))
        (row,) = policy.learner.drain(2.0)
        assert (row["whole"], row["ttft_ms"], row["output_tokens"]) == pytest.approx((1, 900.0, 20))

    @pytest.mark.parametrize("answer", [Answer(status=503), Answer(ttft_s=None)], ids=["refused", "without a token"])
    def test_a_request_that_failed_teaches_nothing(self, answer: Answer) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0])
        finish(policy, rows, 7, by_model(policy, rows), answer)
        assert not len(policy.learner.drain(2.0))

    def test_nor_does_one_that_another_endpoint_served(self) -> None:
        policy, rows = in_charge(), example_rows(REQUEST, batch=[0, 0])
        scores = by_model(policy, rows)
        policy.reserved(7, REQUEST, rows, 0, scores, 1.0, 1.0)
        policy.ended(7, None, 2.0)
        assert not len(policy.learner.drain(2.0))

    def test_reasons_tell_what_was_predicted_and_what_the_rule_thought(self) -> None:
        rows = example_rows(REQUEST, hardware=[FAST, SLOW], queued_tokens=[1000, 0], prefilling=[1, 0])
        reasons = by_model(in_charge(), rows).reasons
        newcomer = np.exp(-0.2)
        assert reasons["predicted_ttft_ms"] == pytest.approx(newcomer * np.array([20 + 100, 4 * 70]), rel=1e-3)
        assert reasons["rule_cost"].tolist() == [2000.0, 1000.0]
        assert reasons["own_ms"] + reasons["marginal_ms"] == pytest.approx(
            reasons["own_ms"] + reasons["decode_ms"] + reasons["eviction_ms"]
        )
