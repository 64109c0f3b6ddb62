"""Which endpoints a model was never trained for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from picker.learning.ranges import outside, unknown_ground

LOWEST, HIGHEST = np.array([0, 0], np.float32), np.array([10, 0], np.float32)


@pytest.mark.parametrize(
    ("feature", "constant", "expected"),
    [
        (0, 0, False),
        (10.9, 0, False),
        (11.1, 0, True),
        (-0.9, 0, False),
        (-1.1, 0, True),
        (5, 1, True),
        (np.nan, 0, True),
        (np.inf, 0, True),
    ],
)
def test_a_tenth_of_the_range_is_allowed_beyond_it(feature: float, constant: float, expected: bool) -> None:
    assert outside(np.array([[feature], [constant]], np.float32), LOWEST, HIGHEST).tolist() == [expected]


@given(arrays(np.float32, (3, 20), elements=st.floats(-1e6, 1e6, width=32)))
def test_what_was_trained_on_is_never_outside(features: np.ndarray) -> None:
    assert not outside(features, features.min(axis=1), features.max(axis=1)).any()


@pytest.mark.parametrize(
    ("endpoints", "row", "expected"),
    [
        ([False, False, True], 0, False),
        ([False, False, True], 2, True),
        ([False, True, True], 0, True),
        ([False, True], 0, False),
    ],
)
def test_the_rule_takes_picks_on_unknown_ground(endpoints: list[bool], row: int, expected: bool) -> None:
    assert unknown_ground(np.array(endpoints), row) is expected
