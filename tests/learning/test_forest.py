"""A forest says what LightGBM said when it grew it, however it is scored, stored or sent."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from picker.learning import boosting, forest
from picker.learning.forest import NO_FOREST, Forest, arrays, fit_forest, flattened, from_arrays, predict
from picker.learning.quickscorer import add_scores

Rows = NDArray[np.float32]


def loads(rows: int, features: int, seed: int) -> Rows:
    """Shape (rows, features), like loads: few distinct values in every third column, one constant column."""
    drawn = np.random.default_rng(seed).lognormal(size=(rows, features)).astype(np.float32)
    drawn[:, ::3] = np.round(drawn[:, ::3])
    drawn[:, -1] = 3.0
    return drawn


def latency(features: Rows) -> NDArray[np.float64]:
    known: NDArray[np.float64] = np.sin(features.sum(axis=1)) + features[:, 0].astype(np.float64)
    return known


def grown(features: Rows, target: NDArray[Any], trees: int = 30, leaves: int = 31) -> tuple[Forest, Any]:
    booster = boosting.boosted(features, target, None, trees=trees, leaves=leaves, seed=0)
    roots = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    return flattened(roots, features.shape[1]), booster


@given(
    rows=st.sampled_from([1, 15, 16, 17, 127, 128, 129, 1024]) | st.integers(1, 300),
    features=st.integers(2, 24),
    leaves=st.integers(2, 32),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_a_forest_scores_like_lightgbm_with_and_without_a_compiler(
    rows: int, features: int, leaves: int, seed: int
) -> None:
    seen = loads(400, features, seed)
    grown_forest, booster = grown(seen, latency(seen), trees=12, leaves=leaves)
    asked = np.concatenate([seen, loads(1024, features, seed + 1)])[-rows:]
    expected = booster.predict(asked, num_threads=1)
    columns = np.ascontiguousarray(asked.T)
    assert predict(grown_forest, columns) == pytest.approx(expected, abs=1e-5)
    assert forest.predict_tables(grown_forest, columns) == pytest.approx(expected, abs=1e-5)


def test_a_value_on_a_threshold_goes_where_lightgbm_sends_it() -> None:
    seen = loads(2000, 6, seed=1)
    grown_forest, booster = grown(seen, latency(seen))
    on_thresholds = np.resize(grown_forest.thresholds, (1000, 6))
    just_above = np.nextafter(on_thresholds, np.float32(np.inf))
    for asked in (on_thresholds, just_above):
        assert predict(grown_forest, asked.T) == pytest.approx(booster.predict(asked), abs=1e-5)


def test_a_threshold_between_two_32_bit_numbers_sends_the_upper_one_right() -> None:
    lower, upper = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    threshold = float(upper) - (float(upper) - float(lower)) / 100
    root = {
        "split_feature": 0,
        "threshold": threshold,
        "left_child": {"leaf_value": 1.0},
        "right_child": {"leaf_value": 2.0},
    }
    asked = np.array([[lower, upper]], np.float32)
    assert predict(flattened([root], 1), asked).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("height", [5, 31])
def test_a_tree_of_thirty_two_leaves_finds_each_of_them(height: int) -> None:
    balanced = height == 5

    def tree(first: int, last: int) -> dict[str, Any]:
        if first == last:
            return {"leaf_value": float(first)}
        middle = (first + last) // 2 if balanced else first
        children = {"left_child": tree(first, middle), "right_child": tree(middle + 1, last)}
        return {"split_feature": 0, "threshold": middle + 0.5, **children}

    one = flattened([tree(0, 31)], 1)
    every_leaf = np.arange(32, dtype=np.float32)
    assert predict(one, every_leaf[None]).tolist() == every_leaf.tolist()
    assert forest.predict_tables(one, every_leaf[None]).tolist() == every_leaf.tolist()


def test_constant_features_leave_one_leaf_per_tree() -> None:
    same = np.ones((200, 3), np.float32)
    fitted = fit_forest(same, np.full(200, 2.5))
    assert fitted.thresholds.size == 0
    assert predict(fitted, same.T) == pytest.approx(2.5)
    assert forest.predict_tables(fitted, same.T) == pytest.approx(2.5)


def test_a_forest_learns_what_depends_on_its_features() -> None:
    seen, unseen = loads(4000, 6, seed=2), loads(500, 6, seed=3)
    fitted = fit_forest(seen, latency(seen))
    error = np.abs(predict(fitted, unseen.T) - latency(unseen)).mean()
    assert error < 0.5 * np.abs(latency(unseen) - latency(seen).mean()).mean()


def test_rows_without_weight_teach_nothing() -> None:
    seen = loads(1000, 4, seed=4)
    told, weight = np.where(np.arange(1000) < 500, 1.0, 9.0), np.where(np.arange(1000) < 500, 1.0, 0.0)
    assert predict(fit_forest(seen, told, weight), seen.T) == pytest.approx(1.0, abs=0.05)


def test_equal_rows_and_seed_give_equal_forests() -> None:
    seen = loads(500, 5, seed=5)
    first, second = (fit_forest(seen, latency(seen), trees=5, seed=7) for _ in range(2))
    assert all(np.array_equal(one, arrays(second)[name]) for name, one in arrays(first).items())


def test_too_few_rows_give_no_forest() -> None:
    seen = loads(39, 4, seed=6)
    assert fit_forest(seen, latency(seen)) is NO_FOREST


@pytest.mark.parametrize("features", [1, 22])
def test_no_forest_scores_nothing_whatever_the_features(features: int) -> None:
    assert predict(NO_FOREST, np.ones((features, 5), np.float32)).tolist() == [0.0] * 5


def test_no_endpoints_get_no_scores() -> None:
    seen = loads(200, 4, seed=8)
    fitted = fit_forest(seen, latency(seen), trees=3)
    assert predict(fitted, np.zeros((4, 0), np.float32)).shape == (0,)


def test_a_forest_is_never_asked_about_other_features_than_its_own() -> None:
    seen = loads(200, 4, seed=8)
    with pytest.raises(ValueError, match="forest of 4"):
        predict(fit_forest(seen, latency(seen), trees=3), np.zeros((3, 16), np.float32))


def test_without_a_compiler_predictions_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = loads(300, 4, seed=9)
    fitted = fit_forest(seen, latency(seen), trees=10)
    compiled = predict(fitted, seen.T)
    monkeypatch.setattr(forest, "COMPILED", False)
    monkeypatch.setattr(forest, "add_scores", None)
    assert predict(fitted, seen.T) == pytest.approx(compiled, abs=1e-5)


def test_warming_up_leaves_nothing_to_compile() -> None:
    forest.warm()
    compiled: Any = add_scores
    known = list(compiled.signatures)
    seen = loads(300, 4, seed=10)
    fitted = from_arrays(arrays(fit_forest(seen, latency(seen), trees=10)))
    predict(fitted, seen.T)
    assert compiled.signatures == known


SEEN = loads(200, 4, seed=8)
GROWN = fit_forest(SEEN, latency(SEEN), trees=3)


def test_a_forest_survives_being_taken_apart() -> None:
    again = from_arrays(arrays(GROWN))
    assert predict(again, SEEN.T).tolist() == predict(GROWN, SEEN.T).tolist()
    assert len(from_arrays(arrays(NO_FOREST))) == 0


def test_a_forest_is_its_own_copy() -> None:
    sent = {name: part.copy() for name, part in arrays(GROWN).items()}
    received = from_arrays(sent)
    sent["split_features"][:] = 2**31
    assert predict(received, SEEN.T).tolist() == predict(GROWN, SEEN.T).tolist()


SPLITS = ("split_features", "thresholds", "masks")


def changed(name: str, at: Any, value: Any) -> dict[str, NDArray[Any]]:
    parts = {known: part.copy() for known, part in arrays(GROWN).items()}
    parts[name][at] = value
    return parts


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {**arrays(GROWN), "more": np.zeros(1)},
        {**arrays(GROWN), "split_features": GROWN.split_features.astype(np.int64)},
        {**arrays(GROWN), "masks": GROWN.masks[:, :-2]},
        {**arrays(GROWN), "leaves": GROWN.leaves[:, :31]},
        {**arrays(GROWN), "leaves": GROWN.leaves[:0]},
        {name: np.resize(part, (2000, *part.shape[1:])) if part.ndim else part for name, part in arrays(GROWN).items()},
        {name: part[:, :-1] if name in SPLITS else part for name, part in arrays(GROWN).items()},
        {name: np.resize(part, (3, 34)) if name in SPLITS else part for name, part in arrays(GROWN).items()},
        {**arrays(GROWN), "inputs": np.array(1, np.uint32)},
        {**arrays(GROWN), "inputs": np.array(2**31, np.uint32)},
        {**arrays(GROWN), "inputs": np.array([4], np.uint32)},
        changed("split_features", (0, 0), 4),
        changed("split_features", (2, -1), 2**32 - 1),
        changed("thresholds", (0, 0), np.nan),
        changed("thresholds", (0, 0), np.inf),
        changed("masks", 1, 0),
        changed("leaves", (0, 0), np.nan),
        {**arrays(GROWN), "leaves": np.full((3, 32), 3e38, np.float32)},
    ],
)
def test_arrays_of_no_forest_are_refused(parts: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(ValueError, match="forest"):
        from_arrays(parts)


@given(data=st.data(), name=st.sampled_from(sorted(arrays(GROWN))))
@settings(max_examples=100, deadline=None)
def test_whatever_bytes_arrive_are_refused_or_scored(data: st.DataObject, name: str) -> None:
    own = arrays(GROWN)[name]
    sent = np.frombuffer(own.tobytes(), np.uint8)
    drawn = np.frombuffer(data.draw(st.binary(min_size=own.nbytes, max_size=own.nbytes)), np.uint8)
    sent = sent ^ (drawn & np.uint8(data.draw(st.sampled_from([0, 1, 255]))))
    try:
        received = from_arrays({**arrays(GROWN), name: sent.view(own.dtype).reshape(own.shape)})
    except ValueError:
        return
    asked = np.resize(SEEN.T, (received.features, len(SEEN)))
    assert np.isfinite(predict(received, asked)).all()
    assert predict(received, asked) == pytest.approx(forest.predict_tables(received, asked), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("features", "target", "weight"),
    [
        (np.full((50, 2), np.nan, np.float32), np.ones(50), None),
        (np.full((50, 2), np.inf, np.float32), np.ones(50), None),
        (np.ones((50, 2), np.float32), np.full(50, np.nan), None),
        (np.ones((50, 2), np.float32), np.ones(50), np.full(50, np.inf)),
        (np.ones((50, 2), np.float32), np.ones(50), np.full(50, -1.0)),
        (np.ones((50, 2), np.float32), np.ones(49), None),
        (np.ones((50, 2), np.float32), np.ones(50), np.ones((50, 1))),
        (np.ones(50, np.float32), np.ones(50), None),
        (np.ones((50, 0), np.float32), np.ones(50), None),
    ],
)
def test_what_cannot_be_learned_from_is_refused(features: Rows, target: Rows, weight: Rows | None) -> None:
    with pytest.raises(ValueError, match="forest"):
        fit_forest(features, target, weight)


@pytest.mark.parametrize("size", [{"trees": 0}, {"trees": 1025}, {"leaves": 1}, {"leaves": 33}])
def test_a_forest_has_bounds(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="size"):
        fit_forest(SEEN, latency(SEEN), None, **size)
