"""Forests of small regression trees: grown by LightGBM, kept as plain arrays, scored without it.

A forest is what crosses from the process that trains to the one that picks, and what lies on disk between two runs:
five arrays, checked on arrival.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import kernel
from picker.learning import quickscorer, tree_code
from picker.learning.compiled import built_of
from picker.learning.quickscorer import (
    AT_ONCE,
    COMPILED,
    EVERY_LEAF,
    LANES,
    MAX_LEAVES,
    SLOTS,
    Bits,
    Float,
    Indices,
    Tables,
    add_scores,
    table_scores,
    tables,
)

MAX_TREES = 1024
MAX_FEATURES = 1024

Node = Mapping[str, Any]
"""As LightGBM dumps it: a split (split_feature, threshold, left_child for values up to it, right_child), or a leaf
(leaf_value)."""


@dataclass(frozen=True, eq=False)
class Forest:
    """T trees over F features, C-contiguous; `picker/learning/quickscorer.py` says how they are read."""

    inputs: NDArray[np.uint32]
    """Shape (): F."""
    split_features: Indices
    """Shape (T, S): what each split looks at. Trees of fewer splits end in some that send every row left."""
    thresholds: Float
    """Shape (T, S): values up to it go left."""
    masks: Bits
    """Shape (T, S): the leaves that are left to a row that goes right."""
    leaves: Float
    """Shape (T, MAX_LEAVES): values, leaf i at SLOTS[i]."""

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def features(self) -> int:
        """F; a forest without trees takes any number."""
        return int(self.inputs)

    @cached_property
    def tables(self) -> Tables:
        """For scoring by numpy; made when first asked for, some hundred kilobytes."""
        return tables(self.split_features, self.thresholds, self.masks, self.features)


def arrays(forest: Forest) -> dict[str, NDArray[Any]]:
    """The forest's arrays by name, for sending and storing."""
    return {field.name: getattr(forest, field.name) for field in fields(forest)}


def _padding(trees: int, features: int, splits: int) -> Forest:
    """So many trees of no splits and leaves of zero, with room for some."""
    return Forest(
        np.array(features, np.uint32),
        np.zeros((trees, splits), np.uint32),
        np.full((trees, splits), np.finfo(np.float32).max),
        np.full((trees, splits), EVERY_LEAF),
        np.zeros((trees, MAX_LEAVES), np.float32),
    )


NO_FOREST = _padding(trees=0, features=0, splits=0)
"""No trees: scores 0 for every row."""


def from_arrays(parts: Mapping[str, NDArray[Any]]) -> Forest:
    """A forest of copies of these arrays, whoever sent them.

    Raises ValueError unless they are exactly those of a forest that `predict` can score: names, types, shapes, order,
    references within bounds, finite numbers, and a leaf left in every tree whatever the row.
    """
    kinds = {name: (own.dtype, own.ndim) for name, own in arrays(NO_FOREST).items()}
    if {name: (part.dtype, part.ndim) for name, part in parts.items()} != kinds:
        raise ValueError(f"not the arrays of a forest: {', '.join(sorted(parts)) or 'none'}")
    forest = Forest(**{name: np.array(parts[name], order="C") for name in kinds})
    splits = forest.split_features.shape
    _require(forest.features <= MAX_FEATURES, "number of features")
    _require(len(forest) <= MAX_TREES and forest.leaves.shape[1] == MAX_LEAVES, "shape of the leaf values")
    _require(splits == forest.thresholds.shape == forest.masks.shape, "shapes of the splits")
    _require(splits[0] == len(forest) and splits[1] in range(0, MAX_LEAVES + 1, AT_ONCE), "number of splits")
    _require(bool((forest.split_features < forest.inputs).all()), "a split of no feature")
    _require(bool(np.isfinite(forest.thresholds).all()), "a threshold that is no number")
    _require(bool(np.bitwise_and.reduce(forest.masks, axis=1).all()), "a tree without a last leaf")
    _require(bool(np.isfinite(forest.leaves).all()), "a leaf value that is no number")
    most = np.abs(forest.leaves).max(axis=1, initial=0.0).sum(dtype=np.float64)
    _require(bool(most < np.finfo(np.float32).max), "leaf values without a finite sum")
    return forest


def predict(forest: Forest, features: Float) -> Float:
    """Sum of all trees per row, shape (N,). `features`: (F, N), finite. Raises ValueError for another F."""
    if not len(forest):
        return np.zeros(features.shape[1], np.float32)
    if features.ndim != 2 or len(features) != forest.features:
        raise ValueError(f"{features.shape} features for a forest of {forest.features}")
    if not COMPILED:
        return predict_tables(forest, features)
    out = np.empty(features.shape[1], np.float32)
    columns = np.ascontiguousarray(features)
    _predict_compiled(forest.split_features, forest.thresholds, forest.masks, forest.leaves, columns, out)
    return out


def predict_tables(forest: Forest, features: Float) -> Float:
    """`predict` by numpy alone, for where numba compiles nothing: some seven times slower."""
    return table_scores(forest.tables, forest.leaves, features)


@kernel
def _predict_compiled(
    split_features: Indices, thresholds: Float, masks: Bits, leaves: Float, features: Float, out: Float
) -> None:
    """`features`: (F, N); out: (N,)."""
    inputs, rows = features.shape
    known, scores = np.empty((1, inputs, LANES), np.float32), np.empty(LANES, np.float32)
    for at in range(0, rows, LANES):
        for feature in range(inputs):
            for lane in range(LANES):
                known[0, feature, lane] = features[feature, min(at + lane, rows - 1)]
        scores[:] = 0.0
        add_scores(split_features, thresholds, masks, leaves, known, 0, scores)
        out[at : at + LANES] = scores[: min(LANES, rows - at)]


built_of(_predict_compiled, quickscorer, tree_code)


def warm() -> None:
    """Compile, or load what an earlier process compiled: a second or two that no pick should wait for."""
    predict(_padding(trees=1, features=1, splits=AT_ONCE), np.zeros((1, LANES), np.float32))


def fit_forest(
    features: Float,
    target: NDArray[np.floating[Any]],
    weight: NDArray[np.floating[Any]] | None = None,
    *,
    trees: int = 100,
    leaves: int = 31,
    seed: int = 0,
) -> Forest:
    """LightGBM's boosted trees for `target`, (rows,), by Huber's loss; equal arguments give equal forests.

    features: (rows, F). Fewer rows than two leaves must hold give NO_FOREST. Raises ValueError for shapes that do not
    match, numbers that are not finite, negative weights, or sizes beyond MAX_TREES, MAX_LEAVES, MAX_FEATURES.
    """
    features = np.ascontiguousarray(features, np.float32)
    _require(features.ndim == 2 and 1 <= features.shape[1] <= MAX_FEATURES, "shape of the features")
    _require(1 <= trees <= MAX_TREES and 2 <= leaves <= MAX_LEAVES, "size of the forest")
    for part in (target,) if weight is None else (target, weight):
        _require(part.shape == features.shape[:1], "rows of features, target and weight")
        _require(bool(np.isfinite(part).all()), "a target or weight that is no number")
    _require(bool(np.isfinite(features).all()), "a feature that is no number")
    _require(weight is None or bool((weight >= 0).all()), "a negative weight")
    from picker.learning import boosting  # a library that only training needs

    if len(features) < 2 * boosting.LEAST_ROWS_OF_A_LEAF:
        return NO_FOREST
    booster = boosting.boosted(features, target, weight, trees=trees, leaves=leaves, seed=seed)
    return flattened([tree["tree_structure"] for tree in booster.dump_model()["tree_info"]], features.shape[1])


def flattened(roots: Sequence[Node], features: int) -> Forest:
    """A forest of these trees, each of at most MAX_LEAVES leaves, over so many features.

    Thresholds are rounded down to 32 bits: a value of 32 bits is at most the one where it is at most the other.
    """
    values = np.zeros((len(roots), MAX_LEAVES), np.float32)
    trees = [_splits(root, values[tree]) for tree, root in enumerate(roots)]
    most = max(map(len, trees), default=0)
    forest = _padding(len(roots), features, -(-most // AT_ONCE) * AT_ONCE)
    for tree, splits in enumerate(trees):
        for at, (feature, threshold, struck) in enumerate(splits):
            forest.split_features[tree, at] = feature
            forest.thresholds[tree, at] = _rounded_down(threshold)
            forest.masks[tree, at] = EVERY_LEAF ^ np.uint32(struck)
    forest.leaves[:] = values
    return forest


def _splits(root: Node, values: Float) -> list[tuple[int, float, int]]:
    """(feature, threshold, leaves to the left as bits) of a tree's splits. Puts the leaves' values in their slots."""
    found = []

    def leaves_up_to(node: Node, first: int) -> int:
        """How many leaves lie before or under a node whose own begin at `first`."""
        if "leaf_value" in node:
            values[SLOTS[first]] = node["leaf_value"]
            return first + 1
        middle = leaves_up_to(node["left_child"], first)
        found.append((node["split_feature"], node["threshold"], (1 << middle) - (1 << first)))
        return leaves_up_to(node["right_child"], middle)

    leaves_up_to(root, 0)
    return found


def _rounded_down(number: float) -> np.float32:
    nearest = np.float32(number)
    return nearest if float(nearest) <= number else np.nextafter(nearest, np.float32(-np.inf))


def _require(met: bool, what: str) -> None:
    if not met:
        raise ValueError(f"forest: {what}")
