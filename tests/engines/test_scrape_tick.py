"""When each endpoint is scraped next, and the budget over all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.engines.tick import (
    BEAT_S,
    FLOOR_S,
    OVER,
    UNUSED_S,
    Cost,
    Outcome,
    Pace,
    Tick,
    TickSettings,
    Use,
    after,
    first,
    on_beat,
    rate_per_s,
    wait_s,
)

SETTINGS = TickSettings(fast_s=0.1, idle_s=1.5, failed_s=5.0, growth=1.5)
QUIET: list[Outcome] = ["quiet"]
FAILED: list[Outcome] = ["failed"]


def run(*outcomes: Outcome) -> Tick:
    tick = first(SETTINGS)
    for outcome in outcomes:
        tick = after(tick, outcome, SETTINGS)
    return tick


def test_a_new_endpoint_is_looked_at_fast() -> None:
    assert first(SETTINGS).interval_s == 0.1


def test_a_quiet_endpoint_slows_down_step_by_step_to_the_idle_interval() -> None:
    assert [round(run(*QUIET * n).interval_s, 3) for n in (1, 2, 3, 20)] == [0.15, 0.225, 0.338, 1.5]


def test_work_brings_it_back_to_fast_at_once() -> None:
    assert run(*QUIET * 20, "busy").interval_s == 0.1


def test_failures_double_the_interval_up_to_the_cap_and_are_counted() -> None:
    assert [run(*FAILED * n) for n in (1, 2, 3)] == [Tick(0.2, 1), Tick(0.4, 2), Tick(0.8, 3)]
    assert run(*FAILED * 50) == Tick(5.0, 50)


def test_after_a_failure_a_good_scrape_starts_again_from_fast() -> None:
    assert run(*FAILED * 9, "quiet") == Tick(0.1 * 1.5)


def test_in_a_large_pool_the_resting_endpoints_take_half_of_the_budget() -> None:
    settings = TickSettings(scrapes_per_s=100)
    quiet = failed = first(settings)
    for _ in range(30):
        quiet = after(quiet, "quiet", settings, endpoints=1000)
        failed = after(failed, "failed", settings, endpoints=1000)
    assert quiet.interval_s == failed.interval_s == pytest.approx(20.0)
    assert after(quiet, "busy", settings, endpoints=1000).interval_s == 0.1


@given(st.lists(st.sampled_from(["busy", "quiet", "failed"]), max_size=60), st.floats(0, 1, exclude_max=True))
def test_the_wait_keeps_within_floor_and_cap_whatever_happens(outcomes: list[Outcome], draw: float) -> None:
    wait = wait_s(run(*outcomes), draw, SETTINGS)
    assert FLOOR_S <= wait <= SETTINGS.failed_s * (1 + SETTINGS.jitter)


def test_jitter_moves_the_wait_to_either_side_but_never_below_the_floor() -> None:
    settings = TickSettings(fast_s=FLOOR_S, jitter=0.2)
    assert wait_s(Tick(1.0), 0.0, settings) == pytest.approx(0.8)
    assert wait_s(Tick(1.0), 0.75, settings) == pytest.approx(1.1)
    assert wait_s(Tick(FLOOR_S), 0.0, settings) == FLOOR_S


@pytest.mark.parametrize(
    "wrong",
    [
        {"fast_s": 0.01},
        {"fast_s": 2.0, "idle_s": 1.0},
        {"failed_s": float("inf")},
        {"growth": 1.0},
        {"jitter": 0.9},
        {"scrapes_per_s": 0.0},
        {"cpu_share": 0.0},
        {"cpu_share": float("nan")},
        {"fast_s": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        TickSettings(**wrong)


def test_within_the_budget_nobody_waits() -> None:
    pace = Pace()
    assert [pace.delay(now, per_s=10) for now in (0.0, 0.1, 0.25)] == [0.0, 0.0, 0.0]


def test_a_thousand_endpoints_at_once_are_spread_over_the_budget() -> None:
    pace = Pace()
    assert max(pace.delay(0.0, per_s=500) for _ in range(1000)) == pytest.approx(999 / 500)


@given(st.lists(st.floats(0, 0.05), min_size=2, max_size=200))
def test_no_second_holds_more_than_the_budget(gaps: list[float]) -> None:
    pace, now, starts = Pace(), 0.0, []
    for gap in gaps:
        now += gap
        starts.append(now + pace.delay(now, per_s=20))
    for i, start in enumerate(starts):
        assert sum(start <= other < start + 1.0 - 1e-6 for other in starts[i:]) <= 20


COSTS_S = st.floats(0, 0.1)
SIZES = st.integers(1, 20_000)


@given(COSTS_S, SIZES)
def test_scrapes_take_their_share_of_a_core_and_no_more(cost_s: float, endpoints: int) -> None:
    rate = rate_per_s(cost_s, endpoints, SETTINGS)
    needed = 2 * endpoints / SETTINGS.idle_s
    assert rate * cost_s <= SETTINGS.cpu_share * (1 + 1e-9) or rate <= needed


@given(COSTS_S, SIZES)
def test_however_dear_they_are_resting_engines_are_looked_at_at_their_interval_within_the_most_scrapes(
    cost_s: float, endpoints: int
) -> None:
    rate = rate_per_s(cost_s, endpoints, SETTINGS)
    assert min(SETTINGS.scrapes_per_s, 2 * endpoints / SETTINGS.idle_s) <= rate <= SETTINGS.scrapes_per_s
    tick = first(SETTINGS)
    for _ in range(40):
        tick = after(tick, "quiet", SETTINGS, endpoints, rate)
    assert tick.interval_s == pytest.approx(max(SETTINGS.idle_s, 2 * endpoints / rate))


def test_unknown_costs_are_taken_for_none() -> None:
    assert rate_per_s(0.0, 4, SETTINGS) == SETTINGS.scrapes_per_s


@given(st.floats(0, 1e7), st.floats(FLOOR_S, 5.0))
def test_a_wait_ends_on_a_beat_that_is_near(now: float, wait: float) -> None:
    beats = (now + on_beat(now, wait)) / BEAT_S
    assert beats == pytest.approx(round(beats), abs=1e-3)
    assert 0 < on_beat(now, wait) <= wait + BEAT_S / 2 + 1e-6
    assert on_beat(now, wait) >= wait - BEAT_S / 2 - 1e-6


def test_what_a_scrape_costs_is_the_median_so_that_one_that_was_slow_changes_nothing() -> None:
    cost = Cost()
    for spent in [1.0] + [0.002] * (OVER - 2):
        cost.add(spent)
    assert cost.each_s == 0
    cost.add(0.001)
    assert cost.each_s == 0.002


def test_a_pool_is_in_use_while_picks_come_and_a_second_longer() -> None:
    use = Use()
    use.seen(picks=0, in_flight=0, now=10.0)
    assert not use.lately(10.0)
    use.seen(picks=3, in_flight=0, now=11.0)
    use.seen(picks=3, in_flight=0, now=11.5)
    assert use.lately(11.0 + UNUSED_S)
    assert not use.lately(11.1 + UNUSED_S)


def test_a_pool_is_in_use_while_an_answer_runs() -> None:
    use = Use()
    use.seen(picks=1, in_flight=1, now=0.0)
    use.seen(picks=1, in_flight=1, now=60.0)
    assert use.lately(60.5)
