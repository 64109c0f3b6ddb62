"""Trees that learn row by row say what the base missed lately, whatever they are told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from picker.learning.online_tree import LARGEST, OnlineTrees

Rows = NDArray[np.float64]


def loads(rows: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).uniform(0, 10, (rows, 3))


def taught(features: Rows, residual: Rows, trees: OnlineTrees | None = None) -> OnlineTrees:
    trees = OnlineTrees() if trees is None else trees
    for row, missed in zip(features, residual, strict=True):
        trees.learn(row, missed, -missed)
    return trees


def test_nothing_learned_leaves_the_base_as_it_is() -> None:
    assert OnlineTrees().predict(loads(5).T).tolist() == [[0.0] * 5] * 2


def test_trees_learn_which_loads_the_base_misjudges() -> None:
    seen, unseen = loads(600), loads(50, seed=1)
    trees = taught(seen, np.where(seen[:, 0] > 5, 0.5, -0.3))
    expected = np.where(unseen[:, 0] > 5, 0.5, -0.3)
    said = trees.predict(unseen.T)
    assert said.dtype == np.float32
    assert np.abs(said[0] - expected).mean() < 0.1
    assert np.abs(said[1] + expected).mean() < 0.1


def test_trees_learn_from_a_feature_of_two_values() -> None:
    seen = loads(400)
    seen[:, 1] = seen[:, 1] > 5
    trees = taught(seen, np.where(seen[:, 1] > 0, 0.5, -0.3))
    assert trees.predict(np.array([[5.0, 5.0], [0.0, 1.0], [5.0, 5.0]]))[0] == pytest.approx([-0.3, 0.5], abs=0.05)


def test_an_unknown_tpot_teaches_ttft_alone() -> None:
    trees = OnlineTrees()
    for row in loads(100):
        trees.learn(row, 0.4, float("nan"))
    assert trees.predict(np.ones((3, 1)))[:, 0] == pytest.approx([0.4, 0.0])


def test_equal_rows_and_seed_give_equal_predictions() -> None:
    seen = loads(300)
    first, second = (taught(seen, np.sin(seen[:, 0]), OnlineTrees(seed=3)) for _ in range(2))
    assert first.predict(seen.T).tolist() == second.predict(seen.T).tolist()


def test_a_tree_at_the_end_of_its_life_leaves_what_its_heir_learned() -> None:
    trees = taught(loads(100), np.full(100, 1.0), OnlineTrees(lifetime=200))
    taught(loads(99), np.full(99, -0.5), trees)
    assert trees.predict(np.full((3, 1), 5.0))[0, 0] == pytest.approx(0.25, abs=0.1)
    taught(loads(1), np.full(1, -0.5), trees)
    assert trees.predict(np.full((3, 1), 5.0))[0, 0] == pytest.approx(-0.5)


def test_an_endpoint_of_odd_numbers_is_left_to_the_base() -> None:
    trees = taught(loads(100), np.full(100, 0.4))
    asked = np.ones((3, 3))
    asked[1, 1] = np.nan
    assert trees.predict(asked)[0] == pytest.approx([0.4, 0.0, 0.4])


ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(rows=st.lists(st.tuples(hnp.arrays(np.float64, 3, elements=ANY), ANY, ANY), max_size=40))
@settings(max_examples=30, deadline=None)
def test_no_numbers_break_it(rows: list[tuple[Rows, float, float]]) -> None:
    trees = OnlineTrees(lifetime=300)
    for features, ttft, tpot in rows * 12:
        trees.learn(features, ttft, tpot)
    for features, _, _ in rows:
        said = trees.predict(features[:, None])
        assert (np.abs(said) <= LARGEST).all()
