"""Between simulated engines requests move as their agents agree, and arrive whole."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.policies.variant import policy_maker
from picker.requests.request import Request
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Result
from picker.simulator.engine import Engine
from picker.simulator.events import Crash, Leave, PoolEvent
from picker.simulator.generator import generate
from picker.simulator.migration import Links, Migration, memberships
from picker.simulator.station import Station
from picker.simulator.steptime import load_row
from picker.simulator.workload import Job, Workload, unshared
from picker.stages.replan import Plan, Stage, unstaged
from picker.stages.step_model import StepModel, of_row

H100 = dataclasses.replace(load_row(), alpha=0.2)
MODEL = of_row(H100)


class Shorts:
    """Everything begins on the first engine, whose stage ends at 1,000 tokens."""

    name = "shorts"
    moves = True
    bounds: tuple[float, ...] = (1000.0,)

    def __init__(self, stages: int = 2) -> None:
        ranges = (Stage(0.0, 1000.0, (0,), 1.0), Stage(1000.0, float("inf"), (1,), 1.0))
        self.plan = Plan(ranges, "as the test has it") if stages == 2 else unstaged((0, 1), "as the test has it")
        self.models: Mapping[int, StepModel] = {0: MODEL, 1: MODEL}

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        return Scores(rows.slots.astype(np.float64), {})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass


def growing(requests: int = 12, output: int = 2000) -> Workload:
    jobs = [Job(index, 300, output, unshared(index + 1, 300, 64), 64) for index in range(requests)]
    return Workload("growing", [(20.0 * job.index, job) for job in jobs])


def play(stages: int = 2, events: list[PoolEvent] | None = None, work: Workload | None = None, **given: Any) -> Result:
    policy = Shorts(stages)
    cluster = Cluster([H100] * 2, lambda rng: policy, events=events or [], migration=Migration(**given))
    return cluster.run(work or growing())


def test_requests_that_outgrow_their_stage_end_whole_at_another_engine() -> None:
    result = play()
    assert result.moved is not None
    assert result.moved.moved == len(result.moved.gaps_ms) > 3
    assert [one.status for one in result.ended] == [200] * 12
    assert {one.output_tokens for one in result.ended} == {2000}
    assert sum(station.engine.counters.finished_requests for station in result.stations) == 12
    assert all(station.engine.pool.free == station.engine.pool.size for station in result.stations)


def test_nobody_moves_without_stages() -> None:
    result = play(stages=1)
    assert result.moved is not None
    assert (result.moved.offered, result.stations[1].engine.counters.steps) == (0, 0)


def test_kv_is_pulled_and_what_was_pulled_is_not_computed_again() -> None:
    pulled, computed = play(kv="pull"), play(kv="compute")
    assert pulled.moved is not None
    assert computed.moved is not None
    assert pulled.moved.bytes > 100e6
    assert computed.moved.bytes == 0
    assert computed.moved.moved > 3
    there = pulled.stations[1].engine.counters
    assert there.prefix_hits > 0.9 * there.prefix_queries


def test_a_move_is_a_pause_of_messages_hand_over_and_a_step() -> None:
    quick, slow = play(handover_ms=0.0, message_ms=0.5), play(handover_ms=100.0, message_ms=0.5)
    assert quick.moved is not None
    assert slow.moved is not None
    assert 0.5 < min(quick.moved.gaps_ms) < 30
    assert min(slow.moved.gaps_ms) > 100


def test_a_slow_link_moves_fewer_before_they_are_over() -> None:
    fast, slow = play(link_gbps=400.0), play(link_gbps=0.05)
    assert fast.moved is not None
    assert slow.moved is not None
    assert slow.moved.moved < fast.moved.moved
    assert [one.status for one in slow.ended] == [200] * 12


def test_transfers_on_a_link_come_one_after_another_at_its_speed() -> None:
    one, two, three = (Station(name, Engine(H100)) for name in "abc")
    links = Links(gbps=8.0)
    assert links.transfer(one, two, 1e6, 10.0) == pytest.approx(11.0)
    assert links.transfer(one, three, 2e6, 10.5) == pytest.approx(13.0)
    assert links.transfer(three, two, 1e6, 11.5) == pytest.approx(14.0)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 12), st.integers(0, 1), st.booleans(), st.sampled_from(["pull", "compute"]))
def test_an_engine_that_goes_takes_only_its_own_requests_along(at_s: float, which: int, dies: bool, kv: str) -> None:
    event: PoolEvent = Crash(at_s, which) if dies else Leave(at_s, which)
    result = play(events=[event], work=growing(6, 800), kv=kv)
    assert sorted(one.job for one in result.ended) == list(range(6))
    assert all(one.status == 200 for one in result.ended) or dies
    assert all(s.engine.pool.free == s.engine.pool.size for s in result.stations if s.alive)


def test_the_same_seed_moves_the_same() -> None:
    assert play().ended == play().ended


def test_where_nothing_is_staged_every_request_goes_as_without_stages() -> None:
    work = generate("gen:x?requests=150&rate=40&share=0.47", seed=3)
    plain, staged = (
        Cluster([load_row()] * 2, policy_maker(name), seed=3, migration=Migration()).run(work)
        for name in ("multiplicative", "staged?migration=true")
    )
    assert staged.ended == plain.ended


def test_a_plan_gives_each_engine_its_lengths_its_peers_and_who_comes_next() -> None:
    plan = Plan((Stage(0, 100, (0, 1), 1.0), Stage(100, 900, (2,), 1.0), Stage(900, float("inf"), (3,), 1.0)), "")
    parts = memberships(plan, (120.0, 900.0), dict(enumerate("abcde")))
    assert (parts[0].high, parts[0].stage, parts[0].neighbours, parts[0].following) == (120.0, ("b",), ("c",), ("c",))
    assert (parts[2].high, parts[2].stage, parts[2].neighbours) == (900.0, (), ("a", "b", "d"))
    assert (parts[3].high, parts[3].neighbours, parts[3].following) == (float("inf"), ("c",), ())
    assert parts[4].pool == set("abcd")
    assert not parts[4].neighbours


@pytest.mark.parametrize("given", [{"link_gbps": 0}, {"transfers": 0}, {"message_ms": -1}])
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"link|delays"):
        Migration(**given)
