"""Joins, leaves, slow-downs and crashes, as a router lives through them."""

from collections import Counter
from collections.abc import Sequence

from picker.policies.registry import REGISTRY
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended
from picker.simulator.events import Crash, Join, Leave, PoolEvent, Slow
from picker.simulator.signals import Signals
from picker.simulator.steptime import load_row
from picker.simulator.workload import Job, Workload, unshared

H100 = load_row()
SIGNALS = Signals()


def steady(requests: int = 200, gap_ms: float = 20.0, output: int = 20) -> Workload:
    """A request every `gap_ms`, nothing shared."""
    return Workload("steady", [(i * gap_ms, Job(i, 400, output, unshared(i + 1, 400))) for i in range(requests)])


def play(events: Sequence[PoolEvent], workload: Workload, engines: int = 3, signals: Signals = SIGNALS) -> list[Ended]:
    cluster = Cluster(
        [H100] * engines,
        lambda rng: REGISTRY["least-request"]({}, rng),
        events=events,
        joining=lambda _: H100,
        signals=signals,
    )
    return sorted(cluster.run(workload).ended)


def engines_used(ended: Sequence[Ended], from_ms: float, to_ms: float = 1e9) -> Counter[str]:
    return Counter(e.address for e in ended if from_ms <= e.arrived_ms < to_ms)


def test_a_joined_engine_serves_once_it_is_detected() -> None:
    ended = play([Join(1.0, "any")], steady(), signals=Signals(detection_ms=500.0))
    assert len(engines_used(ended, 0, 1500)) == 3
    assert len(engines_used(ended, 1500)) == 4


def test_a_leaving_engine_finishes_what_it_has_and_gets_no_more() -> None:
    ended = play([Leave(1.0, 0)], steady(output=200), signals=Signals(detection_ms=0.0))
    gone = "10.0.0.0:8000"
    assert gone in engines_used(ended, 0, 1000)
    assert gone not in engines_used(ended, 1001)
    assert all(e.complete for e in ended)
    assert any(e.address == gone and e.arrived_ms + e.e2e_ms > 1500 for e in ended)


def test_a_crash_breaks_off_what_runs_there_and_newcomers_fall_back() -> None:
    ended = play([Crash(1.0, 0)], steady(output=100))
    broken = [e for e in ended if e.status == 0]
    assert broken
    assert {e.address for e in broken} == {"10.0.0.0:8000"}
    assert all(e.arrived_ms < 1000 for e in broken)
    later = [e for e in ended if e.arrived_ms >= 1000]
    assert all(e.complete and e.address != "10.0.0.0:8000" for e in later)


def test_requests_are_refused_while_nobody_is_up() -> None:
    ended = play([Crash(1.0, 0), Join(2.0, "any")], steady(), engines=1, signals=Signals(detection_ms=100.0))
    assert {e.status for e in ended if 1000 <= e.arrived_ms < 2000} == {503}
    assert all(e.complete for e in ended if e.arrived_ms > 2200)


def test_a_slow_engine_takes_longer_by_its_factor_and_recovers() -> None:
    usual, slow = (play(events, steady(requests=1, output=1000), engines=1)[0] for events in ([], [Slow(0.0, 0, 3.0)]))
    assert usual.tpot_ms is not None
    assert slow.tpot_ms is not None
    assert abs(slow.tpot_ms / usual.tpot_ms - 3.0) < 1e-6
    half = play([Slow(0.0, 0, 3.0), Slow(2.0, 0, 1.0)], steady(requests=1, output=1000), engines=1)[0]
    assert usual.e2e_ms < half.e2e_ms < slow.e2e_ms


def test_stale_signals_cost_a_policy_that_lives_on_them() -> None:
    """`weighted` reads the scraped queue: with slow scrapes a burst lands on few engines."""
    burst = Workload("burst", [(2000.0 + i, Job(i, 4000, 20, unshared(i + 1, 4000))) for i in range(60)])

    def worst(scrape_ms: float) -> float:
        cluster = Cluster(
            [H100] * 4, lambda rng: REGISTRY["jsq"]({}, rng), signals=Signals(scrape_s=0.05, scrape_ms=scrape_ms)
        )
        return max(e.ttft_ms or 0.0 for e in cluster.run(burst).ended)

    assert worst(1.0) <= worst(5000.0)


def test_the_same_prompt_is_found_again_through_the_engines_events() -> None:
    jobs = [(i * 2000.0, Job(i, 4000, 5, unshared(1, 4000))) for i in range(8)]
    cluster = Cluster([H100] * 4, lambda rng: REGISTRY["multiplicative"]({}, rng))
    ended = cluster.run(Workload("same", jobs)).ended
    assert [e.cached_tokens for e in ended] == [0] + [3984] * 7
    assert len({e.address for e in ended}) == 1


def test_events_that_lag_are_not_known_before() -> None:
    """What lies further back than the router's own memory of picks (2 s) is known by events alone."""
    jobs = [(i * 4000.0, Job(i, 4000, 5, unshared(1, 4000))) for i in range(8)]
    cluster = Cluster(
        [H100] * 4, lambda rng: REGISTRY["multiplicative"]({}, rng), signals=Signals(event_lag_ms=1e6), seed=1
    )
    assert len({e.address for e in cluster.run(Workload("same", jobs)).ended}) > 1
