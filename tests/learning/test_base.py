"""The physical base finds what work costs, and never says that more of it is faster."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from picker.engines.table import MAX_HARDWARE
from picker.learning.base import LEAST_CLASS_ROWS, fit_base

Matrix = NDArray[np.float64]
TRUE = np.array([20.0, 80.0, 0.5])
"""ms per request, per thousand new tokens, per token pair in millions."""


def work(rows: int, seed: int = 0) -> Matrix:
    """Requests, thousands of new tokens, millions of token pairs."""
    new_k = np.random.default_rng(seed).uniform(0.1, 8.0, rows)
    return np.stack((np.ones(rows), new_k, 4 * new_k**2), axis=1)


def noisy(terms: Matrix, coefficients: Matrix, spread: float = 0.1, seed: int = 0) -> Matrix:
    noise = np.random.default_rng(seed + 1).normal(0, spread, len(terms))
    took: Matrix = (terms * coefficients).sum(axis=1) * np.exp(noise)
    return took


def of_class(rows: int, kind: int = 0) -> NDArray[np.intp]:
    return np.full(rows, kind, np.intp)


def off(coefficients: Matrix, true: Matrix) -> float:
    """Largest relative error of what is said of usual requests."""
    asked = work(200, seed=9)
    return float(np.abs(asked @ coefficients / (asked * true).sum(axis=1) - 1).max())


def test_noise_hides_no_coefficient() -> None:
    terms = work(300)
    base = fit_base(terms, noisy(terms, TRUE), of_class(300))
    assert off(base[0], TRUE) < 0.05


def test_a_request_of_10_ms_weighs_as_much_as_one_of_10_s() -> None:
    """Errors are relative: a tenth off is a tenth off at either end."""
    new_k = np.geomspace(0.001, 100.0, 300)
    terms = np.stack((np.ones(300), new_k), axis=1)
    base = fit_base(terms, noisy(terms, np.array([10.0, 100.0])), of_class(300))
    assert base[0] == pytest.approx([10.0, 100.0], rel=0.05)


@pytest.mark.parametrize("absurd_ms", [0.01, 500_000.0])
def test_a_few_absurd_latencies_do_not_bend_it(absurd_ms: float) -> None:
    terms = work(300)
    took = noisy(terms, TRUE)
    took[::30] = absurd_ms
    assert off(fit_base(terms, took, of_class(300))[0], TRUE) < 0.2


def test_each_class_has_its_own_coefficients() -> None:
    terms, kinds = work(400), np.arange(400) % 2
    took = np.where(kinds == 1, noisy(terms, 3 * TRUE), noisy(terms, TRUE))
    base = fit_base(terms, took, kinds)
    assert off(base[0], TRUE) < 0.1
    assert off(base[1], 3 * TRUE) < 0.1


def test_a_class_with_few_rows_leans_on_all_the_others() -> None:
    few = LEAST_CLASS_ROWS - 1
    terms, kinds = work(300), np.where(np.arange(300) < few, 5, 0)
    took = np.where(kinds == 5, noisy(terms, 3 * TRUE), noisy(terms, TRUE))
    base = fit_base(terms, took, kinds)
    assert base[5].tolist() == base[3].tolist(), "as a class that was never seen"
    kinds[few] = 5
    assert fit_base(terms, took, kinds)[5].tolist() != base[3].tolist()


def test_what_a_class_has_not_tried_is_taken_from_the_others() -> None:
    """A class that served short prompts alone is not thought to serve long ones for nothing."""
    terms, kinds = work(400), np.arange(400) % 2
    terms[kinds == 1, 2] = 0.0
    base = fit_base(terms, noisy(terms, TRUE), kinds)
    assert base[1, 2] > 0.3 * TRUE[2]


amounts = st.floats(0, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(
    terms=hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.integers(1, 9)), elements=amounts),
    seed=st.integers(0, 99),
)
def test_more_work_is_never_said_to_be_faster(terms: Matrix, seed: int) -> None:
    rng = np.random.default_rng(seed)
    took = rng.uniform(0.1, 6e5, len(terms))
    base = fit_base(terms, took, rng.integers(0, MAX_HARDWARE, len(terms)))
    assert base.shape == (MAX_HARDWARE, terms.shape[1])
    assert np.isfinite(base).all()
    assert (base >= 0).all()
