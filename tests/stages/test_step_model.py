"""Step models: from the table, and fitted from what a router sees."""

import numpy as np
import pytest

from picker.simulator.steptime import load_row
from picker.stages.fit import ENOUGH, StepFit
from picker.stages.step_model import StepModel, of_row


def test_a_row_of_the_table_is_a_step_model() -> None:
    row = load_row("rtxpro6000/llama-3.1-8b tp1")

    model = of_row(row)

    decode_only = model.fixed_ms + 10 * model.decode_ms + model.context_ms * 20_000 / 1e6
    assert decode_only == pytest.approx(row.ms(10, 0.0, 20_000, 10))


def test_a_step_takes_time() -> None:
    with pytest.raises(ValueError, match="some time"):
        StepModel(fixed_ms=0.0, decode_ms=1.0, context_ms=1.0, prefill_ms=1.0)


def test_the_fit_finds_the_engine_behind_noisy_times() -> None:
    rng, fit = np.random.default_rng(0), StepFit()
    for _ in range(1500):
        batch = int(rng.integers(1, 100))
        mean, longest = rng.uniform(500, 8000), rng.uniform(8000, 60_000)
        uneven = batch * (longest - mean)
        step = 8.0 + 0.05 * batch + 60e-6 * batch * mean + 0.2 * 60e-6 * uneven
        fit.decoded(step * rng.lognormal(0, 0.05), batch, batch * mean, longest)
        tokens = rng.uniform(100, 20_000)
        fit.prefilled((30 + 0.02 * tokens + 1.0 * tokens**2 / 2e6) * rng.lognormal(0, 0.05), tokens, tokens**2 / 2)

    model = fit.model(4e5)

    assert model is not None
    assert model.fixed_ms == pytest.approx(8.0, rel=0.15)
    assert model.context_ms == pytest.approx(60.0, rel=0.2)
    assert model.alpha == pytest.approx(0.2, rel=0.25)
    assert model.prefill_ms == pytest.approx(0.02, rel=0.15)
    assert model.kv_tokens == 4e5


def test_too_little_was_seen_for_a_model() -> None:
    fit = StepFit()
    for _ in range(ENOUGH - 1):
        fit.decoded(10.0, 4, 4000, 1500)
        fit.prefilled(50.0, 1000, 5e5)

    assert fit.model(0.0) is None


def test_absurd_times_are_left_out() -> None:
    fit = StepFit()
    for value in (float("nan"), float("inf"), -1.0, 0.0):
        for _ in range(2 * ENOUGH):
            fit.decoded(value, 4, 4000, 1500)
            fit.prefilled(value, 1000, 5e5)

    assert fit.model(0.0) is None
