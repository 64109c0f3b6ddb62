"""What holds for any cluster, workload and policy: nothing is lost, nothing is left behind, and a seed says it all."""

import dataclasses
import gc
import json
import weakref
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.policies.policy import Policy
from picker.policies.registry import REGISTRY
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended, Result
from picker.simulator.events import Crash, Join, Leave, PoolEvent, Slow
from picker.simulator.generator import generate
from picker.simulator.sequence import Limits
from picker.simulator.signals import Signals
from picker.simulator.station import IDLE
from picker.simulator.steptime import load_row
from picker.simulator.summary import Slo, summarize
from picker.simulator.workload import Job, Workload, linked, unshared

H100 = load_row()
SMALL = dataclasses.replace(H100, kv_tokens=4096)


def policy(name: str) -> Callable[[np.random.Generator], Policy]:
    def make(rng: np.random.Generator) -> Policy:
        return REGISTRY[name]({}, rng)

    return make


def cluster(name: str = "multiplicative", engines: int = 3, **given: Any) -> Cluster:
    return Cluster([SMALL] * engines, policy(name), joining=lambda _: SMALL, **given)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    arrivals = []
    index = 0
    for _ in range(draw(st.integers(1, 12))):
        jobs = []
        for _ in range(draw(st.integers(1, 3))):
            prompt = draw(st.one_of(st.integers(1, 600), st.integers(3000, 5000)))
            owner = draw(st.integers(1, 3))
            jobs.append(
                (draw(st.floats(0, 2000)), Job(index, prompt, draw(st.integers(1, 200)), unshared(owner, prompt)))
            )
            index += 1
        arrivals.append((draw(st.floats(0, 3000)), linked(jobs)))
    return Workload("drawn", sorted(arrivals, key=lambda arrival: arrival[0]))


@st.composite
def pool_events(draw: st.DrawFn) -> list[PoolEvent]:
    """Any of what may happen to three engines, each leaving or crashing at most once."""
    times = sorted(draw(st.lists(st.floats(0, 4), max_size=4)))
    events: list[PoolEvent] = []
    present = [0, 1, 2]
    for at in times:
        kind = draw(st.sampled_from(["join", "leave", "crash", "slow"]))
        if kind == "join":
            events.append(Join(at, "any"))
        elif kind == "slow":
            events.append(Slow(at, 0, draw(st.floats(0.1, 10))))
        elif present:
            engine = present.pop()
            events.append(Leave(at, engine) if kind == "leave" else Crash(at, engine))
    return events


@settings(max_examples=60, deadline=None)
@given(
    workloads(),
    pool_events(),
    st.sampled_from(["multiplicative", "random", "weighted", "least-request"]),
    st.sampled_from(["exact", "text"]),
)
def test_every_request_ends_once_and_nothing_is_left(
    workload: Workload, events: list[PoolEvent], name: str, matching: Literal["exact", "text"]
) -> None:
    simulated = cluster(name, events=events, signals=Signals(matching=matching))
    result = simulated.run(workload)
    assert sorted(ended.job for ended in result.ended) == list(range(workload.jobs))
    ledger = simulated.router.ledger
    assert len(ledger) == 0
    assert not ledger.columns[:4].any()
    assert not any(simulated.router.is_open(flight) for flight in range(workload.jobs + 2))
    for station in result.stations:
        if station.alive:
            assert station.ends_ms == IDLE
            assert not station.engine.running
            assert not station.engine.waiting
            assert station.engine.pool.free == station.engine.pool.size
    for ended in result.ended:
        assert ended.status in (200, 400, 503, 0)
        too_long = ended.prompt_tokens > 4096
        assert not (too_long and ended.complete)
        if ended.complete:
            assert ended.ttft_ms is not None
            assert 0 < ended.ttft_ms <= ended.e2e_ms


@settings(max_examples=20, deadline=None)
@given(workloads(), pool_events(), st.integers(0, 3))
def test_a_seed_determines_the_result_to_the_byte(workload: Workload, events: list[PoolEvent], seed: int) -> None:
    first, second = (cluster(events=events, seed=seed).run(workload) for _ in range(2))
    assert in_bytes(first) == in_bytes(second)


def in_bytes(result: Result) -> bytes:
    return json.dumps(summarize(result, Slo())).encode() + repr(result.ended).encode()


@settings(max_examples=30, deadline=None)
@given(workloads())
def test_an_engine_with_requests_is_never_idle(workload: Workload) -> None:
    simulated = cluster("least-request", engines=2)

    def look(_: Ended) -> None:
        for station in simulated.stations:
            if station.engine.running or station.engine.waiting:
                assert station.ends_ms != IDLE

    simulated.run(workload, on_end=look)


def test_two_seeds_break_ties_differently() -> None:
    workload = generate("gen:?requests=40&rate=200")
    picks = [[e.address for e in cluster("random", seed=seed).run(workload).ended] for seed in (1, 2)]
    assert picks[0] != picks[1]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_policy_plays_a_workload_to_its_end(name: str) -> None:
    result = Cluster([H100] * 3, policy(name)).run(generate("gen:?requests=30&rate=30"))
    assert all(ended.complete for ended in result.ended)


def test_a_prompt_longer_than_the_engine_is_the_clients_fault_and_the_session_goes_on() -> None:
    first, then = Job(0, 5000, 1, unshared(1, 5000)), Job(1, 10, 1, unshared(2, 10))
    workload = Workload("two", [(0.0, linked([(0.0, first), (5.0, then)]))], closed_loop=True)
    assert [ended.status for ended in cluster().run(workload).ended] == [400, 200]


def test_a_limit_on_waiting_requests_refuses_for_now() -> None:
    jobs = [(0.0, Job(i, 3000, 500, unshared(i + 1, 3000))) for i in range(4)]
    result = cluster(engines=1, limits=Limits(max_waiting=1)).run(Workload("burst", jobs))
    assert sorted(ended.status for ended in result.ended) == [200, 200, 503, 503]


def test_a_cluster_that_is_done_is_freed_at_once() -> None:
    gc.disable()
    try:
        done = cluster()
        done.run(generate("gen:x?rate=20", limit=5))
        left = weakref.ref(done)
        del done

        assert left() is None
    finally:
        gc.enable()
