"""How long a step takes."""

from dataclasses import replace

import pytest

from picker.simulator.steptime import StepTime, load_row, load_table, parse_table

HEADER = "gpu,model,T0,c0,c1,c2,c3,c4,c5,c6,c7,kv_tokens,source,mape_pct\n"
FIT = StepTime("g", "m", t0=100, c0=5, c1=0.01, c2=0.1, c3=2, c4=50, c5=0.5, c6=30, c7=4, kv_tokens=1000)


def test_every_shipped_row_gives_a_positive_time_and_a_capacity() -> None:
    assert len(load_table()) == 6
    for name, fit in load_table().items():
        assert fit.name == name
        assert fit.kv_tokens > 100_000
        assert 0 < fit.ms(1, 0, 1000, 1) < fit.ms(2048, 2048 * 1024, 1000, 1)


def test_h100_prefills_a_thousand_tokens_in_about_twenty_ms() -> None:
    fit = load_row("h100_sxm/llama-3-8b tp1")
    expected = 6.3527 + 0.0111157 * 512 + 0.0203209 * 488 + 0.870311 * 1000 * 500 / 1e6
    assert fit.ms(1000, 1000 * 500.0, 0, 0) == pytest.approx(expected)


def test_tokens_beyond_the_knee_cost_the_second_slope() -> None:
    assert FIT.ms(100, 0, 0, 0) == pytest.approx(5 + 1)
    assert FIT.ms(110, 0, 0, 0) == pytest.approx(5 + 1 + 1)


def test_decode_pays_for_context_and_sequences() -> None:
    assert FIT.ms(2, 0, 100_000, 2) == pytest.approx(5 + 0.02 + 5 + 1)


def test_prefill_in_the_same_step_makes_decode_reads_dearer_and_history_costs() -> None:
    alone = FIT.ms(12, 0, 100_000, 2)
    mixed = FIT.ms(12, 1000, 100_000, 2, history=500)
    assert mixed - alone == pytest.approx(2 * 1000e-6 + 30 * 0.1 + 4 * 0.5)


def test_unequal_lengths_cost_alpha_times_the_gap_to_the_longest() -> None:
    uneven = replace(FIT, alpha=0.2)
    assert uneven.ms(2, 0, 1_000_000, 2, longest=900_000) - FIT.ms(2, 0, 1_000_000, 2) == pytest.approx(0.2 * 50 * 0.8)
    assert uneven.ms(2, 0, 1_000_000, 2, longest=500_000) == pytest.approx(FIT.ms(2, 0, 1_000_000, 2))


def test_host_time_is_added_to_every_step() -> None:
    assert replace(FIT, host_ms=0.7).ms(1, 0, 0, 1) == pytest.approx(FIT.ms(1, 0, 0, 1) + 0.7)


def test_an_unknown_row_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"no step-time row 'tpu'.*l40s/llama-3-8b tp1"):
        load_row("tpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu,model\na,b\n", "no column 'T0'"),
        (HEADER + "a,b,1,x,1,1,1,1,1,1,1,1,s,1\n", "line 2"),
        (HEADER + "a,b,1,nan,1,1,1,1,1,1,1,1,s,1\n", "not a finite number"),
        (HEADER + "a,b,1\n", "line 2"),
        (HEADER + "a,b,1,1,1,1,1,1,1,1,1,1,s,1\n" * 2, "given twice"),
    ],
)
def test_a_broken_table_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_table(text)
