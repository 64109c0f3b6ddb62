"""What models are trained on."""

import numpy as np
from experience_rows import rows
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.window import Window


def test_the_latest_rows_are_all_kept_in_order() -> None:
    window = Window(recent=10, reservoir=0)
    window.add(rows(25))
    assert window.rows()["at_s"].tolist() == list(range(15, 25))


def test_older_rows_are_kept_whole_while_there_is_room() -> None:
    window = Window(recent=10, reservoir=20)
    window.add(rows(25))
    assert window.rows()["at_s"].tolist() == list(range(25))


def test_every_older_row_is_as_likely_to_be_kept() -> None:
    kept = np.zeros(100)
    for seed in range(400):
        window = Window(recent=5, reservoir=20, seed=seed)
        for start in range(0, 105, 7):
            window.add(rows(7, start))
        kept[window.rows()["at_s"][:20].astype(int)] += 1
    halves = kept[:50].mean(), kept[50:].mean()
    assert kept.sum() == 400 * 20
    assert abs(halves[0] - halves[1]) < 10  # both are about 80, with a deviation of about 1
    assert kept.min() > 40


def test_an_endpoint_that_changed_loses_its_rows_from_before() -> None:
    window = Window(recent=10, reservoir=10)
    window.add(rows(20, endpoint=np.arange(20) % 2))
    window.forget(endpoint=1, before_s=15)
    left = window.rows()
    assert left[left["endpoint"] == 1]["at_s"].tolist() == [15, 17, 19]
    assert len(left[left["endpoint"] == 0]) == 10


def test_what_was_forgotten_makes_room_for_what_comes() -> None:
    window = Window(recent=5, reservoir=10)
    window.add(rows(100, endpoint=7))
    window.forget(endpoint=7, before_s=100)
    window.add(rows(100, 100))
    assert len(window) == 15


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9))
def test_it_is_bounded_ordered_without_repeats_and_the_same_again(
    batches: list[int], recent: int, reservoir: int, seed: int
) -> None:
    one, other = Window(recent, reservoir, seed), Window(recent, reservoir, seed)
    for window in (one, other):
        start = 0
        for count in batches:
            window.add(rows(count, start))
            start += count
    times = one.rows()["at_s"].tolist()
    assert len(times) == len(one) == min(sum(batches), recent + reservoir)
    assert times == sorted(set(times)) == other.rows()["at_s"].tolist()
