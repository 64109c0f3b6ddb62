"""Filters: who stays a candidate."""

import numpy as np
import pytest
from composing import REQUEST, composed, kept, look, members

from picker.policies.composed.plugins import FILTERS
from picker.policies.composed.policy import Step
from picker.policies.example import example_rows
from picker.policies.policy import Saturated
from picker.policies.strict import BadSettings

THREE = members({"gpu": "h100", "tier": "gold"}, {"gpu": "l4"}, {})


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [True, True, True]),
        ({"matchLabels": {"gpu": "h100"}}, [True, False, False]),
        ({"matchLabels": {"gpu": "h100", "tier": "silver"}}, [False, False, False]),
        ({"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["l4", "h100"]}]}, [True, True, False]),
        ({"matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": ["l4"]}]}, [True, False, True]),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, [True, False, False]),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, [False, True, True]),
    ],
)
def test_labels_select_as_in_kubernetes(params: dict[str, object], expected: list[bool]) -> None:
    assert kept("label-selector-filter", look(REQUEST, THREE, waiting=[0] * 3), **params) == expected


@pytest.mark.parametrize(("operator", "values"), [("In", []), ("Exists", ["x"]), ("Is", ["x"])])
def test_an_expression_that_means_nothing_is_refused(operator: str, values: list[str]) -> None:
    with pytest.raises(BadSettings, match="matchExpressions"):
        kept(
            "label-selector-filter",
            look(REQUEST, THREE, waiting=[0] * 3),
            matchExpressions=[{"key": "gpu", "operator": operator, "values": values}],
        )


def test_one_label_may_be_absent_only_where_that_is_allowed() -> None:
    seen = look(REQUEST, THREE, waiting=[0] * 3)

    assert kept("by-label", seen, label="gpu", validValues=["l4"]) == [False, True, False]
    assert kept("by-label", seen, label="gpu", validValues=["l4"], allowsNoLabel=True) == [False, True, True]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("decode-filter", [True, False, True, True, True]),
        ("prefill-filter", [False, True, True, True, False]),
        ("encode-filter", [False, False, False, True, False]),
    ],
)
def test_a_role_filter_keeps_those_whose_role_names_the_part(kind: str, expected: list[bool]) -> None:
    roles = ({"llm-d.ai/role": role} for role in ("decode", "prefill", "prefill-decode", "encode-prefill-decode"))

    assert kept(kind, look(REQUEST, members(*roles, {}), waiting=[0] * 5)) == expected


def test_labels_follow_the_pool() -> None:
    policy = composed(filters=(Step("label-selector-filter", parameters={"matchLabels": {"gpu": "l4"}}),))
    rows = example_rows(REQUEST, waiting=[0, 0])

    policy.meet(members({"gpu": "h100"}, {"gpu": "l4"}).by_slot)
    assert policy.score(REQUEST, rows, 0.0).cost.tolist() == [np.inf, 0.0]
    policy.meet(members({"gpu": "l4"}, {"gpu": "h100"}).by_slot)
    assert policy.score(REQUEST, rows, 0.0).cost.tolist() == [0.0, np.inf]


def test_prefix_holders_stay_alone() -> None:
    assert kept("prefix-cache-affinity-filter", look(hit_tokens=[1600, 1280, 1279])) == [True, True, False]


@pytest.mark.parametrize("hits", [[0, 100], [1600, 1600]])
def test_without_a_holder_or_with_holders_only_everybody_stays(hits: list[float]) -> None:
    assert kept("prefix-cache-affinity-filter", look(hit_tokens=hits)) == [True, True]


def test_a_holder_too_far_behind_is_not_waited_for() -> None:
    params = {"maxTTFTPenaltyMs": 1000, "peakPrefillThroughput": 5000}
    near, far = (look(hit_tokens=[1600, 0], queued_tokens=[q, 1000]) for q in (6000, 6001))

    assert kept("prefix-cache-affinity-filter", near, **params) == [True, False]
    assert kept("prefix-cache-affinity-filter", far, **params) == [True, True]
    assert kept("prefix-cache-affinity-filter", far, **{**params, "maxTTFTPenaltyMs": 0}) == [True, False]


def test_exploration_lets_the_others_in_now_and_then() -> None:
    seen = look(hit_tokens=[1600, 0])
    explores = FILTERS["prefix-cache-affinity-filter"]({"explorationProbability": 0.3}, np.random.default_rng(0))

    assert 250 < sum(explores(seen).all() for _ in range(1000)) < 350


def test_the_utilization_detector_keeps_those_with_room_and_all_where_nobody_has_any() -> None:
    seen = look(waiting=[5, 6, 0], kv_usage=[0.8, 0.0, 0.81])

    assert kept("utilization-detector", seen) == [True, False, False]
    assert kept("utilization-detector", seen, headroom=0.2) == [True, True, True]
    assert kept("utilization-detector", look(waiting=[9, 9])) == [True, True]


def test_the_concurrency_detector_keeps_those_below_the_cap_and_sheds_where_nobody_is() -> None:
    seen = look(in_flight=[1, 2, 3], queued_tokens=[500, 100, 100])

    assert kept("concurrency-detector", seen, maxConcurrency=3) == [True, True, False]
    hybrid = {"concurrencyMode": "hybrid", "maxConcurrency": 3, "maxTokenConcurrency": 400}
    assert kept("concurrency-detector", seen, **hybrid) == [False, True, False]
    assert kept("concurrency-detector", seen, maxConcurrency=3, headroom=0.5) == [True, True, True]
    with pytest.raises(Saturated):
        kept("concurrency-detector", seen, maxConcurrency=1)
