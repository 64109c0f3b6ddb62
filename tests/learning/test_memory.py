"""Models and what was learned, as arrays and as bytes: the same again, or an error."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from experience_rows import learnable, rows

from picker.learning import memory, store
from picker.learning.experience import EXPERIENCE
from picker.learning.memory import Memory, from_arrays, packed, to_arrays, unpacked
from picker.learning.model import Model
from picker.learning.store import StoreError, pack, unpack
from picker.learning.training import estimate_rows, train

ROWS = learnable(300)
CLASSES = ("", "H100", "L40S")


@pytest.fixture(scope="module")
def model() -> Model:
    trained = train(ROWS, 7)
    assert trained is not None
    assert len(trained.ttft_trees)
    return trained


def assert_same(one: Model, other: Model) -> None:
    assert (one.version, one.rows, one.corrections) == (other.version, other.rows, other.corrections)
    for name in ("log_ttft", "log_tpot"):
        np.testing.assert_array_equal(
            getattr(estimate_rows(one, ROWS), name), getattr(estimate_rows(other, ROWS), name)
        )


def test_a_model_that_crosses_as_arrays_predicts_the_same(model: Model) -> None:
    assert_same(from_arrays(unpack(pack(to_arrays(model)))), model)


def test_a_model_of_few_rows_has_no_trees_and_crosses_too() -> None:
    small = train(learnable(40), 1)
    assert small is not None
    assert_same(from_arrays(to_arrays(small)), small)


def test_what_was_learned_comes_back(model: Model) -> None:
    back = unpacked(packed(Memory(12.5, ROWS, CLASSES, model)))
    assert (back.at_s, back.hardware) == (12.5, CLASSES)
    np.testing.assert_array_equal(back.rows, ROWS)
    assert back.model is not None
    assert_same(back.model, model)


def test_a_picker_that_learned_nothing_yet_is_remembered_as_that() -> None:
    back = unpacked(packed(Memory(0.0, rows(0), ("",), None)))
    assert (len(back.rows), back.hardware, back.model) == (0, ("",), None)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("counts", np.array([1])),
        ("counts", np.array(3)),
        ("ttft_base", np.full(memory.SHAPES["ttft_base"][1], -1.0)),
        ("ttft_base", np.full(memory.SHAPES["ttft_base"][1], np.nan)),
        ("tpot_base", np.zeros(memory.SHAPES["ttft_base"][1])),
        ("lowest", np.zeros(memory.SHAPES["lowest"][1])),
        ("highest", np.array(["a"] * memory.SHAPES["highest"][1][0])),
        ("corrections", np.zeros(3)),
        ("ttft_trees/masks", np.zeros(1, np.uint32)),
        ("ttft_trees/inputs", np.zeros(3, np.uint32)),
        ("another", np.zeros(3)),
    ],
)
def test_arrays_that_are_no_model_are_an_error(model: Model, name: str, array: Any) -> None:
    arrays = to_arrays(model)
    if name == "another":
        del arrays["lowest"]
    with pytest.raises(ValueError, match=r"."):
        from_arrays({**arrays, name: array})


def test_trees_over_other_features_are_an_error(model: Model) -> None:
    fewer = replace(model.ttft_trees, inputs=model.ttft_trees.inputs + np.uint32(1))
    with pytest.raises(ValueError, match="features"):
        from_arrays(to_arrays(replace(model, ttft_trees=fewer)))


@pytest.mark.parametrize(
    "change",
    [
        {"meaning": np.array(1, np.uint64)},
        {"rows": np.zeros(3)},
        {"rows": rows(3, ttft_ms=np.nan)},
        {"rows": np.zeros((2, 2), EXPERIENCE)},
        {"hardware": np.array(3)},
        {"hardware": np.array(["H100"])},
        {"hardware": np.empty(0, np.str_)},
        {"at_s": np.zeros(3)},
        {"model/counts": np.array([1, 2])},
    ],
)
def test_what_another_version_or_a_stranger_wrote_is_an_error(change: dict[str, Any]) -> None:
    arrays = unpack(packed(Memory(0.0, rows(3), CLASSES, None)))
    with pytest.raises(StoreError):
        unpacked(store.pack({**arrays, **change}))
