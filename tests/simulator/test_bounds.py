"""Bounds and regret: what is foreseen is what happens, and looking changes nothing."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.policies.registry import REGISTRY
from picker.simulator.bounds import Bound, is_bound, make_bound
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended
from picker.simulator.events import Crash
from picker.simulator.foresight import Moment, added_ms, own_ttft_ms
from picker.simulator.pool_spec import slowed
from picker.simulator.regret import Regret
from picker.simulator.replay_run import Cell, Setting, run_cell
from picker.simulator.signals import Signals
from picker.simulator.steptime import StepTime, load_row
from picker.simulator.workload import Job, Workload, linked, unshared

H100 = load_row()
SMALL = dataclasses.replace(H100, kv_tokens=4096)
UNLIKE = "h100_sxm/llama-3-8b tp1:2,l40s/llama-3-8b tp1:1"
BOUNDS = ("clairvoyant-ttft", "clairvoyant-total", "rollout-3")


def job(index: int, prompt: int, output: int = 1, owner: int | None = None) -> Job:
    return Job(index, prompt, output, unshared(index + 100 if owner is None else owner, prompt))


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    arrivals = []
    for index in range(draw(st.integers(1, 12))):
        prompt = draw(st.one_of(st.integers(1, 600), st.integers(2000, 3500)))
        made = job(index, prompt, draw(st.integers(1, 200)), draw(st.integers(1, 3)))
        arrivals.append((draw(st.floats(0, 1500)), made))
    return Workload("drawn", [(at, made) for at, made in sorted(arrivals, key=lambda arrival: arrival[0])])


def cluster(name: str = "multiplicative", engines: int = 3, **given: Any) -> Cluster:
    return Cluster([SMALL] * engines, lambda rng: REGISTRY[name]({}, rng), **given)


def bounded(name: str, rows: list[StepTime], workload: Workload, **given: Any) -> dict[int, Ended]:
    bound = make_bound(name, workload)
    result = Cluster(rows, lambda rng: bound, seers=[bound], **given).run(workload)
    return {ended.job: ended for ended in result.ended}


def ttft_ms(ended: Ended) -> float:
    assert ended.ttft_ms is not None
    return ended.ttft_ms


class Curious:
    """Looks at everything, and remembers the last moment's values."""

    def see(self, moment: Moment) -> None:
        self.ttft_ms = {s.address: own_ttft_ms(moment, s) for s in moment.rows if s.alive}
        self.added_ms = {s.address: added_ms(moment, s) for s in moment.rows if s.alive}


@settings(max_examples=25, deadline=None)
@given(workloads(), st.floats(0, 2))
def test_looking_ahead_changes_nothing(workload: Workload, crash_s: float) -> None:
    events = [Crash(crash_s, 0)]
    watched = cluster(events=events, seers=[Curious()]).run(workload)
    assert watched.ended == cluster(events=events).run(workload).ended


@settings(max_examples=25, deadline=None)
@given(workloads(), st.sampled_from([0.0, 1.0, 400.0]))
def test_without_later_arrivals_what_is_foreseen_happens(workload: Workload, decision_ms: float) -> None:
    signals, curious = Signals(decision_ms=decision_ms), Curious()
    last = workload.arrivals[-1][1].index
    whole = cluster("random", signals=signals, seers=[curious]).run(workload).ended
    (own,) = (ended for ended in whole if ended.job == last)
    assert own.ttft_ms == pytest.approx(curious.ttft_ms[own.address])
    before = cluster("random", signals=signals).run(Workload("before", workload.arrivals[:-1])).ended
    added = sum(ended.e2e_ms for ended in whole) - sum(ended.e2e_ms for ended in before)
    assert added == pytest.approx(curious.added_ms[own.address])


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_gives_the_same_cell_each_time(name: str) -> None:
    setting, cell = Setting("gen:x?requests=30&rate=20", UNLIKE, regret_stride=2), Cell(name, None, 1, 1.0)
    assert run_cell(setting, cell) == run_cell(setting, cell)


def test_knowing_the_engines_beats_lmetric_on_a_pool_of_unlike_ones() -> None:
    setting = Setting("gen:x?requests=200&rate=16&share=0.71", UNLIKE)
    informed, lmetric = (run_cell(setting, Cell(name, None, 0, 1.0)) for name in ("clairvoyant-ttft", "multiplicative"))
    assert informed["ttft_ms"]["mean"] < 0.9 * lmetric["ttft_ms"]["mean"]
    assert lmetric["regret_ms"]["mean"] > 0


def test_looking_at_the_next_arrival_keeps_an_engine_free_for_it() -> None:
    jobs = [job(0, 30_000, owner=1), job(1, 4000), job(2, 30_000, owner=1)]
    workload = Workload("three", list(zip((0.0, 60_000.0, 60_001.0), jobs, strict=True)))
    rows = [H100, slowed(H100, 1.05)]
    myopic, ahead = (bounded(name, rows, workload) for name in ("clairvoyant-ttft", "rollout-1"))
    assert myopic[1].address == myopic[0].address
    assert ahead[1].address != ahead[0].address == ahead[2].address
    assert ttft_ms(ahead[1]) + ttft_ms(ahead[2]) < ttft_ms(myopic[1]) + ttft_ms(myopic[2])


def test_total_latency_counts_those_who_are_delayed() -> None:
    """A long prefill goes to the slower engine, away from the many that decode on the faster one."""
    jobs = [*(job(i, 100, 600) for i in range(6)), job(6, 8000, 1)]
    workload = Workload("delayed", [*((0.0, made) for made in jobs[:6]), (300.0, jobs[6])])
    selfish, kind = (
        bounded(name, [H100, slowed(H100, 3.0)], workload) for name in ("clairvoyant-ttft", "clairvoyant-total")
    )
    assert ttft_ms(selfish[6]) < ttft_ms(kind[6])
    assert sum(ended.e2e_ms for ended in kind.values()) < sum(ended.e2e_ms for ended in selfish.values())


@pytest.mark.parametrize("name", BOUNDS)
def test_requests_on_their_way_are_seen(name: str) -> None:
    workload = Workload("burst", [(0.0, job(i, 4000, 10)) for i in range(3)])
    ends = bounded(name, [H100] * 3, workload, signals=Signals(decision_ms=50.0))
    assert len({ended.address for ended in ends.values()}) == 3


@pytest.mark.parametrize("name", BOUNDS)
def test_a_dead_engine_gets_nothing_though_the_router_does_not_know(name: str) -> None:
    workload = Workload("steady", [(100.0 * i, job(i, 500)) for i in range(20)])
    ends = bounded(name, [H100] * 2, workload, events=[Crash(0.95, 0)], signals=Signals(detection_ms=1e5))
    survivor = ends[19].address
    assert all(ends[i].address == survivor for i in range(10, 20))


@pytest.mark.parametrize("name", BOUNDS)
def test_a_prompt_that_fits_nowhere_is_refused_as_ever(name: str) -> None:
    ends = bounded(name, [SMALL] * 2, Workload("long", [(0.0, job(0, 5000)), (1.0, job(1, 100))]))
    assert [ends[i].status for i in range(2)] == [400, 200]


def test_rollouts_look_as_far_as_their_name_says() -> None:
    workload = Workload("none", [])
    assert make_bound("rollout-7", workload).name == "rollout-7"
    assert all(is_bound(name) for name in (*BOUNDS, "rollout", "rollout-1"))
    assert not any(is_bound(name) for name in ("rollout-0", "rollout-", "rollout-x", "clairvoyant", "random"))
    assert not any(is_bound(name) for name in REGISTRY)


def test_a_rollout_in_a_closed_loop_is_refused() -> None:
    session = linked([(0.0, job(0, 10)), (5.0, job(1, 10))])
    with pytest.raises(ValueError, match="rollout needs an open-loop trace"):
        make_bound("rollout", Workload("session", [(0.0, session)], closed_loop=True))


def test_the_myopic_clairvoyant_regrets_nothing() -> None:
    setting = Setting("gen:x?requests=60&rate=20", UNLIKE, regret_stride=1)
    regret = run_cell(setting, Cell("clairvoyant-ttft", None, 0, 1.0))["regret_ms"]
    assert regret == {"mean": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "picks": 60, "of": "ttft"}


def test_regret_is_what_the_pick_cost_its_request() -> None:
    """The second of two equal prompts goes where the first is not cached: a whole prefill for nothing."""

    def second_elsewhere(moment: Moment) -> list[float]:
        return [0.0, 1.0] if moment.asked.id == "0" else [1.0, 0.0]

    workload = Workload("two", [(0.0, job(0, 8000, owner=1)), (5000.0, job(1, 8000, owner=1))])
    wrong, regret, curious = Bound("wrong", second_elsewhere), Regret(1, 0), Curious()
    Cluster([H100] * 2, lambda rng: wrong, seers=[wrong, regret, curious], watchers=[regret]).run(workload)
    cached, cold = sorted(curious.ttft_ms.values())
    assert regret.summary(warm_up=1)["mean"] == pytest.approx(cold - cached)
    assert cold > 10 * cached


def test_measuring_regret_changes_nothing_else() -> None:
    cells = [
        run_cell(Setting("gen:x?requests=60&rate=20", UNLIKE, regret_stride=stride), Cell("random", None, 0, 1.0))
        for stride in (0, 1)
    ]
    assert cells[0].pop("regret_ms") is None
    assert cells[1].pop("regret_ms")["picks"] == 60
    assert cells[0] == cells[1]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(0, 5))
def test_one_pick_in_each_stride_is_sampled(stride: int, seed: int) -> None:
    regret = Regret(stride, seed)
    bound = Bound("any", lambda moment: [0.0])
    workload = Workload("steady", [(10.0 * i, job(i, 10)) for i in range(40)])
    Cluster([H100], lambda rng: bound, seers=[bound, regret], watchers=[regret]).run(workload)
    assert 40 // stride <= regret.summary()["picks"] <= -(-40 // stride)


def test_a_stride_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Regret(0, 0)
