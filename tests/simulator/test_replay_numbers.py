"""What a cell's numbers mean, and what a capacity is."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.policies.registry import REGISTRY
from picker.simulator.capacity import NoCapacity, bound_ms, find_capacity, idle_ttft_ms
from picker.simulator.cluster import Cluster
from picker.simulator.ended import SERIES_POINTS, Ended, Look, Series
from picker.simulator.generator import generate
from picker.simulator.replay_run import Cell, Setting, measure_capacity, run_cell
from picker.simulator.sequence import Limits
from picker.simulator.signals import Signals
from picker.simulator.steptime import load_row
from picker.simulator.summary import Slo, spread, summarize
from picker.simulator.workload import Job, Workload, unshared

H100, L40S = load_row("h100_sxm/llama-3-8b tp1"), load_row("l40s/llama-3-8b tp1")
POOL = "h100_sxm/llama-3-8b tp1:2"


def ended(ttft: float | None = 100.0, e2e: float = 1000.0, status: int = 200, output: int = 10) -> Ended:
    return Ended(0, 0.0, ttft, e2e, 2000, output, 0, 0, status, "a")


def alone(prompt: int, output: int, signals: Signals) -> dict[str, object]:
    workload = Workload("one", [(0.0, Job(0, prompt, output, unshared(1, prompt)))])
    cluster = Cluster([H100], lambda rng: REGISTRY["random"]({}, rng), signals=signals)
    return summarize(cluster.run(workload), Slo())


def test_a_lone_request_takes_its_prefill_and_the_way_there_and_back() -> None:
    found = alone(5000, 1, Signals(decision_ms=3.0, response_ms=4.0))
    expected = 7.0 + idle_ttft_ms(H100, 5000, Limits())
    assert found["ttft_ms"] == {name: pytest.approx(expected) for name in ("mean", "p50", "p90", "p99")}
    assert found["tpot_ms"] == {"mean": None, "p50": None, "p90": None, "p99": None}


def test_time_per_token_counts_the_tokens_after_the_first() -> None:
    assert ended(ttft=100.0, e2e=1000.0, output=10).tpot_ms == 100.0
    assert ended(output=1).tpot_ms is None


@pytest.mark.parametrize(
    ("request_", "met"),
    [
        (ended(ttft=1125.0, e2e=1125.0 + 9 * 50), True),
        (ended(ttft=1125.1, e2e=1125.1), False),
        (ended(ttft=100.0, e2e=100.0 + 9 * 50.1), False),
        (ended(ttft=100.0, e2e=5000.0, output=1), True),
        (ended(ttft=None, status=503), False),
        (ended(ttft=1.0, status=0), False),
    ],
)
def test_the_slo_grows_with_the_prompt(request_: Ended, met: bool) -> None:
    assert Slo(1000.0, 62.5, 50.0).met(request_) is met


def test_no_values_have_no_spread() -> None:
    assert spread([]) == {"mean": None, "p50": None, "p90": None, "p99": None}


def test_goodput_is_part_of_throughput_and_shares_add_up() -> None:
    cell = run_cell(Setting("gen:x?requests=60&rate=40", POOL), Cell("least-request", None, 0, 1.0))
    assert 0 <= cell["goodput"] <= cell["throughput"]
    assert cell["completed"] + cell["refused"] + cell["failed"] == cell["requests"] == 60
    assert sum(engine["requests"] for engine in cell["engines"]) == 60
    assert all(0 < engine["busy_share"] <= 1 for engine in cell["engines"])
    assert len(cell["ttft_grid_ms"]) == 101
    assert cell["ttft_grid_ms"][50] == pytest.approx(cell["ttft_ms"]["p50"])
    assert cell["ttft_grid_ms"] == sorted(cell["ttft_grid_ms"])
    assert [len(load) for load in cell["series"]["load"]] == [len(cell["series"]["t_s"])] * 2


def test_warm_up_is_left_out_of_the_numbers_only() -> None:
    whole, rest = (
        run_cell(Setting("gen:x?requests=60&rate=20", POOL, warm_up=n), Cell("least-request", None, 0, 1.0))
        for n in (0, 20)
    )
    assert rest["requests"] == whole["requests"] - 20
    assert rest["series"] == whole["series"]


def test_a_cell_is_the_same_each_time() -> None:
    setting, cell = Setting("gen:x?requests=40", POOL), Cell("random", 0.5, 3, 2.0)
    assert run_cell(setting, cell) == run_cell(setting, cell)


@given(st.integers(1, 5000))
def test_a_series_keeps_its_size_and_even_spacing(looks: int) -> None:
    series = Series()
    for i in range(looks):
        series.look(float(i), partial(Look, [i], None))
    assert len(series.at_ms) <= SERIES_POINTS
    assert series.at_ms[0] == 0.0
    assert len({b - a for a, b in zip(series.at_ms, series.at_ms[1:], strict=False)}) <= 1
    assert looks < 2 or looks - series.at_ms[-1] <= 2 * (series.at_ms[1] if len(series.at_ms) > 1 else 1)


@given(st.floats(0.01, 1000))
def test_capacity_is_where_the_bound_breaks(edge: float) -> None:
    found = find_capacity(lambda scale: 1.0 if scale <= edge else 9.0, bound=5.0)
    assert found <= edge <= found * 1.021


@pytest.mark.parametrize("p99", [0.0, 9.0])
def test_a_bound_that_never_or_always_holds_is_no_capacity(p99: float) -> None:
    with pytest.raises(NoCapacity, match="however"):
        find_capacity(lambda _: p99, bound=5.0)


def test_the_bound_follows_the_prompts_and_the_slower_engines() -> None:
    long = Workload("long", [(0.0, Job(0, 60_000, 1, unshared(1, 60_000)))])
    fast, mixed = (bound_ms(rows, long, Limits(), 400_000) for rows in ([H100], [H100, L40S]))
    assert fast == pytest.approx(3 * idle_ttft_ms(H100, 60_000, Limits()))
    assert mixed > fast
    short = Workload("short", [(0.0, Job(0, 10, 1, unshared(1, 10)))])
    assert bound_ms([H100], short, Limits(), 400_000) == 1000.0


def test_twice_the_engines_carry_about_twice_the_load() -> None:
    one, two = (
        measure_capacity(Setting("gen:x?requests=150&share=0", f"h100_sxm/llama-3-8b tp1:{n}"))["arrivals_per_s"]
        for n in (1, 2)
    )
    assert 1.6 < two / one < 2.6


def test_capacity_measured_twice_is_the_same() -> None:
    setting = Setting("gen:x?requests=60", POOL)
    tried: list[float] = []
    assert measure_capacity(setting, lambda scale, _: tried.append(scale)) == measure_capacity(setting)
    assert len(tried) > 3


def test_unlike_settings_have_unlike_keys() -> None:
    base = Setting("gen:x", POOL)
    others = [Setting("gen:y", POOL), Setting("gen:x", POOL, alpha=0.1), Setting("gen:x", POOL, limit=5)]
    assert len({setting.key() for setting in (base, *others)}) == 4
    assert base.key() == Setting("gen:x", POOL).key()
    assert base.capacity_key() == Setting("gen:x", POOL, warm_up=9, slo=Slo(1.0)).capacity_key()


def test_policies_rank_as_known_on_shared_prefixes() -> None:
    """LMetric beats load alone, and load alone beats chance, on a pool of unlike engines with much sharing."""
    setting = Setting("gen:x?requests=300&rate=16&share=0.71", f"{POOL},l40s/llama-3-8b tp1:1")
    assert generate(setting.trace).jobs == 300
    ttft = {
        name: run_cell(setting, Cell(name, None, 0, 1.0))["ttft_ms"]["mean"]
        for name in ("multiplicative", "least-request", "random")
    }
    assert ttft["multiplicative"] < ttft["least-request"] < ttft["random"]
