"""A composed profile: filters before scorers before the picker, and what the decision log hears of it."""

import numpy as np
import pytest
from composing import REQUEST, composed, members
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.policies.composed.pickers import weighted_random
from picker.policies.composed.plugins import SCORERS
from picker.policies.composed.policy import Composed, Params, Step
from picker.policies.composed.saturation import Admission, Concurrency, OwnLoad, ScrapedLoad, Utilization
from picker.policies.example import example_rows
from picker.policies.strict import BadSettings
from picker.policies.variant import policy_maker
from picker.requests.request import Hints, Request

DEFAULT = (
    Step("queue-scorer", weight=2),
    Step("kv-cache-utilization-scorer", weight=2),
    Step("prefix-cache-scorer", weight=3),
)


def test_the_cost_is_the_weighted_sum_of_scores_below_zero() -> None:
    rows = example_rows(REQUEST, waiting=[4, 0, 1], kv_usage=[0.5, 0.5, 0.9], hit_tokens=[1600, 0, 800])

    assert composed(*DEFAULT).score(REQUEST, rows, 0.0).cost.round(6).tolist() == [-4.0, -3.0, -3.2]


def test_every_plugin_is_a_reason_by_its_name() -> None:
    policy = composed(Step("queue-scorer", name="short queues"), filters=(Step("prefix-cache-affinity-filter"),))
    rows = example_rows(REQUEST, waiting=[0, 1, 3], hit_tokens=[0, 1600, 1600])

    reasons = {name: column.tolist() for name, column in policy.score(REQUEST, rows, 0.0).reasons.items()}

    assert reasons == {"prefix-cache-affinity-filter": [0.0, 1.0, 1.0], "short queues": [0.0, 1.0, 0.0]}


def test_scores_are_taken_over_those_that_the_filters_left() -> None:
    policy = composed(Step("queue-scorer"), filters=(Step("prefix-cache-affinity-filter"),))
    rows = example_rows(REQUEST, waiting=[0, 5, 10], hit_tokens=[0, 1600, 1600])

    assert policy.score(REQUEST, rows, 0.0).cost.tolist() == [np.inf, -1.0, 0.0]


def test_filters_that_leave_nobody_leave_nobody_to_pick() -> None:
    nobody = Step("label-selector-filter", parameters={"matchLabels": {"gpu": "none"}})
    policy = composed(*DEFAULT, filters=(nobody, Step("prefix-cache-affinity-filter")))
    policy.meet(members({}, {}).by_slot)

    assert np.isinf(policy.score(REQUEST, example_rows(REQUEST, waiting=[0, 0]), 0.0).cost).all()


LOADS = ("waiting", "running", "in_flight", "queued_tokens")


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_whatever_is_put_together_somebody_can_be_picked_and_the_order_of_rows_does_not_matter(
    data: st.DataObject,
) -> None:
    n = data.draw(st.integers(1, 6))
    scorers = data.draw(st.lists(st.sampled_from(sorted(SCORERS)), max_size=4))
    filters = data.draw(st.lists(st.sampled_from(["prefix-cache-affinity-filter", "utilization-detector"]), max_size=2))
    counts = st.lists(st.sampled_from([0.0, 1.0, 5.0, 6.0, 1e6]), min_size=n, max_size=n)
    shares = st.lists(st.sampled_from([0.0, 0.5, 0.8, 1.0]), min_size=n, max_size=n)
    columns = {name: data.draw(counts) for name in LOADS} | {"kv_usage": data.draw(shares), "slots": list(range(n))}
    columns["hit_tokens"] = [1600 * share for share in data.draw(shares)]
    order = data.draw(st.permutations(range(n)))
    policy = composed(*map(Step, scorers), filters=tuple(map(Step, filters)))

    cost = policy.score(REQUEST, example_rows(REQUEST, **columns), 0.0).cost
    moved = {name: [column[i] for i in order] for name, column in columns.items()}

    assert np.isfinite(cost).any()
    assert not np.isnan(cost).any()
    np.testing.assert_allclose(policy.score(REQUEST, example_rows(REQUEST, **moved), 0.0).cost, cost[list(order)])


def test_the_random_picker_holds_all_alike() -> None:
    rows = example_rows(REQUEST, waiting=[0, 9])

    assert composed(*DEFAULT, picker="random-picker").score(REQUEST, rows, 0.0).cost.tolist() == [0.0, 0.0]


def test_the_weighted_random_picker_draws_as_often_as_it_says() -> None:
    policy = composed(Step("kv-cache-utilization-scorer"), picker="weighted-random-picker")
    rows = example_rows(REQUEST, kv_usage=[0.9, 0.7, 0.4, 1.0])
    drawn = [policy.score(REQUEST, rows, 0.0) for _ in range(5_000)]

    assert drawn[0].propensity is not None
    np.testing.assert_allclose(drawn[0].propensity, [0.1, 0.3, 0.6, 0.0])
    firsts = np.bincount([scores.cost.argmin() for scores in drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(firsts, drawn[0].propensity, atol=0.025)


def test_the_weighted_random_picker_puts_scores_of_zero_last_and_all_zeros_alike() -> None:
    rng = np.random.default_rng(0)

    assert all(weighted_random(np.array([0.0, 1e-6]), rng)[0].argmax() == 0 for _ in range(100))
    cost, chance = weighted_random(np.zeros(3), rng)
    assert (cost.tolist(), chance) == ([0.0, 0.0, 0.0], None)


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_any_weights_give_finite_costs_and_chances_that_sum_to_one(weights: list[float]) -> None:
    cost, chance = weighted_random(np.array(weights), np.random.default_rng(0))

    assert np.isfinite(cost).all()
    assert chance is None or chance.sum() == pytest.approx(1.0)


def test_a_profile_can_be_said_in_a_line() -> None:
    line = "composed?scorers=queue-scorer:2+kv-cache-utilization-scorer:2+prefix-cache-scorer:3&filters=decode-filter"
    policy = policy_maker(line)(np.random.default_rng(0))
    rows = example_rows(REQUEST, waiting=[4, 0, 1], kv_usage=[0.5, 0.5, 0.9], hit_tokens=[1600, 0, 800])

    assert isinstance(policy, Composed)
    policy.meet(members({}, {}, {}).by_slot)
    assert policy.score(REQUEST, rows, 0.0).cost.round(6).tolist() == [-4.0, -3.0, -3.2]


@pytest.mark.parametrize("word", ["queue-scorer:heavy", "queue-scorer:-1", "queue-scorer:nan", "queue-scorerr"])
def test_a_word_that_says_no_scorer_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"queue-scorer|heavy"):
        policy_maker(f"composed?scorers={word}")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step("queue-scorrer"), (ValueError, "queue-scorrer")),
        (Step("load-aware-scorer", parameters={"treshold": 1}), (BadSettings, 'did you mean "threshold"')),
    ],
)
def test_an_unknown_plugin_or_parameter_is_refused(step: Step, error: tuple[type[Exception], str]) -> None:
    with pytest.raises(error[0], match=error[1]):
        Composed(Params(scorers=(step,)), np.random.default_rng(0))


# Admission


def asks(priority: int) -> Request:
    return Request(hints=Hints(priority=priority))


def test_saturation_is_the_mean_of_the_fuller_of_queue_and_cache() -> None:
    rows = example_rows(REQUEST, waiting=[5, 0, 10], kv_usage=[0.0, 0.4, 0.8], age_s=[0.0, 0.0, 0.0])

    assert ScrapedLoad(Utilization()).saturation(rows) == pytest.approx((1.0 + 0.5 + 2.0) / 3)


def test_only_negative_priority_is_turned_away_and_only_while_the_pool_is_full() -> None:
    admits = Admission(ScrapedLoad(Utilization()).saturation)
    full, roomy = (example_rows(REQUEST, waiting=[n, n], age_s=[0.0, 0.0]) for n in (5, 4))

    assert [admits(asks(priority), full) for priority in (-1, 0, 1)] == [False, True, True]
    assert admits(asks(-1), roomy)


def test_engines_that_are_not_heard_of_shed_nobody() -> None:
    admits = Admission(ScrapedLoad(Utilization()).saturation)

    assert admits(asks(-1), example_rows(REQUEST, waiting=[9, 9], age_s=[60.0, 60.0]))
    assert admits(asks(-1), example_rows(REQUEST, waiting=[0, 0]))


def test_own_load_is_measured_against_the_sum_of_the_caps() -> None:
    rows = example_rows(REQUEST, in_flight=[100, 50], queued_tokens=[0, 1_500_000])

    assert OwnLoad(Concurrency()).saturation(rows) == 0.75
    assert OwnLoad(Concurrency(concurrency_mode="hybrid")).saturation(rows) == 0.75
    assert OwnLoad(Concurrency(concurrency_mode="tokens", max_token_concurrency=500_000)).saturation(rows) == 1.5
