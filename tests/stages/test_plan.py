"""The planner: exact on small pools, sensible on all."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_traffic import ENGINE, EVEN, chats_and_documents, recorded, traffic_of

from picker.stages.lengths import PER_OCTAVE, Lengths, Traffic
from picker.stages.plan import Layout, _coarse, bounds_of, cost_of, propose
from picker.stages.qoe import Valuation
from picker.stages.step_model import StepModel

SLOW = replace(ENGINE, fixed_ms=20.0, prefill_ms=0.06, kv_tokens=2e5)


def everything_there_is(value: Valuation, line: list[int], kinds: int) -> float:
    """The least cost over all boundaries at powers of two and all runs of the line, one by one."""
    edges = [0, *range(1, value.buckets, PER_OCTAVE), value.buckets]
    least = np.inf
    for stages in range(1, len(line) + 1):
        for inner in combinations(edges[1:-1], stages - 1):
            for ends in combinations(range(1, len(line)), stages - 1):
                runs = [line[a:b] for a, b in zip((0, *ends), (*ends, len(line)), strict=True)]
                counts = tuple(tuple(np.bincount(run, minlength=kinds).tolist()) for run in runs)
                least = min(least, cost_of(value, Layout((edges[0], *inner, edges[-1]), counts)))
    return least


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    engines=st.integers(1, 4),
    slow=st.integers(0, 3),
    rate=st.sampled_from([0.3, 1.0, 3.0]),
    alpha=st.sampled_from([0.0, 0.2, 1.0]),
    move_ms=st.sampled_from([0.0, 500.0]),
)
def test_the_programme_finds_the_best_division_there_is(
    seed: int, engines: int, slow: int, rate: float, alpha: float, move_ms: float
) -> None:
    asked = chats_and_documents(seed, number=60)
    traffic = traffic_of(asked, longest=1 << 11, over_s=240 / rate, stay=False)
    kinds = [replace(ENGINE, alpha=alpha), SLOW]
    value = Valuation(traffic, kinds, move_ms=move_ms)
    line = [0] * engines + [1] * min(slow, 4 - engines)

    found, layout = _coarse(value, line, 2, {})

    assert found == pytest.approx(everything_there_is(value, line, 2), rel=1e-9)
    assert cost_of(value, layout) == pytest.approx(found, rel=1e-9)


def test_no_proposal_is_worse_than_no_staging() -> None:
    for seed in range(8):
        traffic = traffic_of(chats_and_documents(seed, number=200), over_s=20.0 * (seed + 1))
        found = propose(traffic, [ENGINE, SLOW], [0, 1, 0, 1, 1], move_ms=20.0)
        assert found.ms <= found.unstaged_ms
        assert np.sum(found.layout.counts) == 5


def test_unlike_lengths_are_parted_where_batches_suffer_from_them() -> None:
    traffic = traffic_of(chats_and_documents(), over_s=200.0)

    found = propose(traffic, [ENGINE], [0] * 8)

    assert found.layout.stages >= 2
    assert 2_000 < bounds_of(found.layout, traffic.edges)[0] < 40_000
    assert found.gain > 0.1


def test_the_more_unlike_lengths_cost_the_more_staging_gains() -> None:
    traffic = traffic_of(chats_and_documents(), over_s=200.0)

    gains = [propose(traffic, [replace(ENGINE, alpha=alpha)], [0] * 8).gain for alpha in (0.0, 0.1, 0.5)]

    assert gains == sorted(gains)
    assert gains[0] < gains[-1]


def test_requests_of_one_length_are_not_parted() -> None:
    traffic = traffic_of([(1000.0, 1000.0, 200.0)] * 500, over_s=60.0)

    assert propose(traffic, [ENGINE], [0] * 8).layout.stages == 1


def test_long_contexts_go_where_their_kv_fits() -> None:
    small = replace(ENGINE, kv_tokens=40_000.0)
    traffic = traffic_of([(1000.0, 1000.0, 200.0), (90_000.0, 1000.0, 200.0)] * 200, over_s=200.0)

    found = propose(traffic, [ENGINE, small], [0, 1, 0, 1])

    assert found.load < 1.0 or found.layout.stages > 1
    value = Valuation(traffic.times(0.1), [ENGINE, small], move_ms=0.0)
    buckets = value.buckets
    assert np.isinf(value.stages([0], [buckets], np.array([[1.0, 1.0]])))
    assert np.isfinite(value.stages([0], [buckets], np.array([[1.0, 0.0]])))


def test_crossings_are_paid_for() -> None:
    asked = [(1000.0, 1000.0, 6000.0)] * 200 + [(60_000.0, 1000.0, 300.0)] * 50
    lengths = recorded(asked, over_s=250.0, stay=False)

    free = propose(lengths.traffic(), [ENGINE], [0] * 6)
    dear = propose(lengths.traffic(), [ENGINE], [0] * 6, move_ms=30_000.0)

    crossed = lengths.traffic().columns[11]
    assert sum(crossed[list(dear.layout.cuts[1:-1])]) <= sum(crossed[list(free.layout.cuts[1:-1])])
    assert dear.ms >= free.ms


def test_a_pool_beyond_its_capacity_is_planned_for_what_it_can_carry() -> None:
    found = propose(traffic_of(chats_and_documents(), over_s=40.0), [ENGINE], [0] * 8)

    assert found.load < 1.0
    assert found.unstaged_ms > 0


def test_without_traffic_or_hope_nothing_is_divided() -> None:
    nothing = Lengths(1 << 17).traffic()
    flood = traffic_of(chats_and_documents(), over_s=0.5)

    for traffic in (nothing, flood):
        assert propose(traffic, [ENGINE], [0] * 4).layout.stages == 1


def test_a_planner_without_engines_says_so() -> None:
    with pytest.raises(ValueError, match="no engines"):
        propose(Lengths().traffic(), [ENGINE], [])


@settings(max_examples=30, deadline=None)
@given(alpha=st.floats(0, 1), rate=st.floats(0.1, 20), seed=st.integers(0, 50))
def test_more_engines_and_less_load_never_cost_more(alpha: float, rate: float, seed: int) -> None:
    traffic: Traffic = traffic_of(chats_and_documents(seed, number=50), over_s=100.0).times(rate)
    kind: StepModel = replace(EVEN, alpha=alpha)

    def requests(engines: float, load: float) -> float:
        value = Valuation(traffic.times(load), [kind], move_ms=0.0)
        return float(value.stages([0], [value.buckets], np.array([[engines]]))[0])

    assert requests(5, 1.0) <= requests(4, 1.0) * (1 + 1e-9)
    assert requests(4, 0.8) <= requests(4, 1.0) * (1 + 1e-9)
