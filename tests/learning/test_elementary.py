"""Logarithms and exponentials as good as the C library's."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.learning.elementary import exp, log, log1p

ULP = 4.5e-16


@settings(deadline=None)
@given(st.floats(0, 1e300) | st.integers(0, 10**7))
def test_the_logarithm_of_one_more_is_right_to_the_last_bits(x: float) -> None:
    assert log1p(float(x)) == pytest.approx(math.log1p(x), rel=ULP, abs=0)


@settings(deadline=None)
@given(st.floats(1e-300, 1e300))
def test_the_logarithm_is_right_to_the_last_bits(x: float) -> None:
    assert log(x) == pytest.approx(math.log(x), rel=ULP, abs=1e-16)


@settings(deadline=None)
@given(st.floats(-700, 700))
def test_the_exponential_is_right_to_the_last_bits(x: float) -> None:
    assert exp(x) == pytest.approx(math.exp(x), rel=ULP, abs=0)


def test_what_is_no_finite_number_stays_so() -> None:
    assert (log1p(math.inf), log(math.inf)) == (math.inf, math.inf)
    assert all(math.isnan(function(math.nan)) for function in (log1p, log, exp))
    assert 0.0 <= exp(-math.inf) < 1e-300
    assert exp(math.inf) > 1e300
