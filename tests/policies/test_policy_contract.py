"""What every registered policy must hold to, whatever the pool looks like."""

import inspect
import pickle
from importlib import import_module
from pkgutil import walk_packages

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pool import make

import picker.policies
from picker.engines.rows import Rows
from picker.engines.table import MAX_HARDWARE
from picker.policies.example import example_request, example_rows
from picker.policies.policy import Policy
from picker.policies.registry import DEFAULT_POLICY, REGISTRY
from picker.policies.strict import BadSettings
from picker.requests.request import Request

GIVEN = ("slots", "hardware", "hit_tokens", "new_tokens", "kv_usage", "age_s")
COLUMNS = tuple(name for name in Rows.__struct_fields__ if name not in GIVEN)

every_policy = pytest.mark.parametrize("name", REGISTRY)

prompts = st.sampled_from([0.0, 1.0, 15.0, 16.0, 1000.0, 131_072.0]) | st.floats(0, 1e7)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    prompt = draw(prompts)
    if draw(st.booleans()):
        return Request(prompt_tokens=prompt)
    blocks = draw(st.integers(0, 300))
    chain = np.random.default_rng(draw(st.integers(0, 3))).integers(0, 2**64, blocks, dtype=np.uint64)
    return Request(prompt_tokens=prompt, chain=chain, block_tokens=draw(st.sampled_from([1.0, 3.7, 16.0, 544.0])))


@st.composite
def pools(draw: st.DrawFn, request: Request) -> Rows:
    """Any rows: never scraped, idle, equal, or as wild as a seeded draw makes them."""
    n = draw(st.sampled_from([1, 2, 3, 8, 2000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0, 1, 10, 1_000, 10_000_000]))
    columns = {name: np.floor(rng.random(n) * scale) for name in COLUMNS}
    held = rng.random(n) * draw(st.sampled_from([0.0, 0.3, 1.0])) * len(request.chain)
    whole = np.floor(held) if draw(st.booleans()) else np.full(n, float(len(request.chain)))
    hit = np.minimum(whole * request.block_tokens, request.prompt_tokens)
    return Rows(
        slots=rng.permutation(2 * n)[:n].astype(np.intp),
        hardware=rng.integers(0, MAX_HARDWARE, n),
        hit_tokens=hit,
        new_tokens=np.maximum(1.0, request.prompt_tokens - hit),
        kv_usage=rng.random(n) * draw(st.sampled_from([0.0, 1.0])),
        age_s=rng.random(n) if draw(st.booleans()) else np.full(n, np.inf),
        **columns,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Request, Rows, int, float]]:
    """Picks made before: (request, rows, chosen row, time), time never running backwards."""
    history, now = [], 0.0
    for _ in range(draw(st.integers(0, 12))):
        request = draw(requests())
        rows = draw(pools(request))
        now += draw(st.sampled_from([0.0, 0.01, 7.0, 61.0, 1e6]))
        history.append((request, rows, draw(st.integers(0, len(rows) - 1)), now))
    return history


def replay(name: str, history: list[tuple[Request, Rows, int, float]]) -> tuple[Policy, float]:
    policy = make(name)
    for request, rows, row, now in history:
        policy.score(request, rows, now)
        policy.picked(request, rows, row, now)
    return policy, history[-1][3] if history else 0.0


def permuted(rows: Rows, order: np.ndarray) -> Rows:
    return Rows(**{name: getattr(rows, name)[order] for name in Rows.__struct_fields__})


@every_policy
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_scores_are_costs_for_every_row_and_at_least_one_can_be_chosen(name: str, data: st.DataObject) -> None:
    policy, now = replay(name, data.draw(histories()))
    request = data.draw(requests())
    rows = data.draw(pools(request))

    scores = policy.score(request, rows, now + data.draw(st.sampled_from([0.0, 1.0, 1e6])))

    for column in (scores.cost, *scores.reasons.values()):
        assert column.shape == (len(rows),)
        assert column.dtype == np.float64
        assert not np.isnan(column).any()
    assert np.isfinite(scores.cost).any()
    assert not np.isneginf(scores.cost).any()


@every_policy
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_score_changes_nothing(name: str, data: st.DataObject) -> None:
    policy, now = replay(name, data.draw(histories()))
    request = data.draw(requests())
    rows = data.draw(pools(request))
    before, state = pickle.dumps(rows), pickle.dumps(policy.__dict__)

    first = policy.score(request, rows, now + 5.0)
    second = policy.score(request, rows, now + 5.0)

    np.testing.assert_array_equal(first.cost, second.cost)
    assert pickle.dumps(rows) == before
    assert pickle.dumps(policy.__dict__) == state


@every_policy
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_order_of_rows_does_not_matter(name: str, data: st.DataObject) -> None:
    policy, now = replay(name, data.draw(histories()))
    request = data.draw(requests())
    rows = data.draw(pools(request))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(rows))

    cost = policy.score(request, rows, now).cost
    shuffled = policy.score(request, permuted(rows, order), now).cost

    np.testing.assert_allclose(shuffled, cost[order], rtol=1e-12)


@every_policy
def test_memory_stays_bounded_over_many_picks(name: str) -> None:
    policy, sizes = make(name), []
    rows = replay_rows()

    for i in range(30_000):
        request = example_request(prompt_tokens=64, prefix=i)
        policy.picked(request, rows, i % len(rows), i / 1000)
        if i in (9_999, 29_999):
            sizes.append(len(pickle.dumps(policy.__dict__)))

    assert sizes[1] <= sizes[0] * 1.05
    assert sizes[1] < 2_000_000


@every_policy
def test_an_empty_pool_gives_an_empty_answer(name: str) -> None:
    request = example_request(prompt_tokens=1000)
    nobody = permuted(replay_rows(), np.empty(0, dtype=np.intp))

    assert make(name).score(request, nobody, 0.0).cost.shape == (0,)


@every_policy
def test_a_policy_goes_by_its_registered_name(name: str) -> None:
    assert make(name).name == name


@every_policy
def test_an_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(BadSettings, match='unknown field "treshold"'):
        make(name, treshold=1)


def test_the_default_policy_is_registered() -> None:
    assert DEFAULT_POLICY in REGISTRY


def test_a_wrong_parameter_names_the_nearest_known_one() -> None:
    with pytest.raises(BadSettings, match='"afinityThreshold"; did you mean "affinityThreshold"') as caught:
        make("sticky-until-saturated", afinityThreshold=0.5, toleratedTtftSeconds="long")

    assert [problem.name for problem in caught.value.problems] == ["afinityThreshold", "toleratedTtftSeconds"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "1", [1], 10**400, -1, 2])
def test_a_parameter_out_of_range_or_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(BadSettings, match="affinityThreshold"):
        make("sticky-until-saturated", affinityThreshold=value)


def replay_rows() -> Rows:
    """Four endpoints, the second of which holds 64 tokens of whatever is asked."""
    return example_rows(example_request(64.0), hit_tokens=[0.0, 64.0, 0.0, 0.0], age_s=[0.0] * 4)


def test_every_policy_in_the_package_is_registered() -> None:
    modules = [import_module(module.name) for module in walk_packages(picker.policies.__path__, "picker.policies.")]
    classes = {
        kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass) if hasattr(kind, "score")
    }

    assert classes - {Policy} == {type(make(name)) for name in REGISTRY}
