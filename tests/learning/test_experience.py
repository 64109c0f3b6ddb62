"""Rows of experience, one by one and together."""

import numpy as np
from experience_rows import rows

from picker.learning.experience import EXPERIENCE, joined


def test_joined_rows_are_the_same_rows_in_the_same_order() -> None:
    many = rows(5, ttft_ms=[3.0, 1.0, 4.0, 1.0, 5.0])
    again = joined(many[i : i + 1] for i in range(5))
    assert again.dtype == EXPERIENCE
    assert np.array_equal(again, many)


def test_a_joined_row_is_no_view_of_the_one_it_was() -> None:
    one = rows(1)
    again = joined([one])
    one["ttft_ms"] = 1.0
    assert again["ttft_ms"] == 100.0


def test_no_rows_joined_are_none() -> None:
    assert joined([]).shape == (0,)
