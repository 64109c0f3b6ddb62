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

from picker.learning.quickscorer import (
    COMPILED,
    EVERY_LEAF,
    LANES,
    MAX_LEAVES,
    SLOTS,
    Bits,
    Float,
    Starts,
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

    feature_starts: Starts
    """Shape (F + 1,): where the splits of each feature begin."""
    thresholds: Float
    """Per split, ascending within a feature."""
    trees: Bits
    """Per split: its tree."""
    masks: Bits
    """Per split: the leaves that are left to a row that goes right."""
    leaves: Float
    """Shape (T, MAX_LEAVES): values, leaf i at SLOTS[i]."""

    def __len__(self) -> int:
        return len(self.leaves)

    @property
    def features(self) -> int:
        """F; a forest without trees takes any number."""
        return len(self.feature_starts) - 1

    @cached_property
    def tables(self) -> Tables:
        """For scoring by numpy; made when first asked for, some hundred kilobytes."""
        return tables(self.feature_starts, self.thresholds, self.trees, self.masks, self.leaves)


def arrays(forest: Forest) -> dict[str, NDArray[Any]]:
    """The forest's arrays by name, for sending and storing."""
    return {field.name: getattr(forest, field.name) for field in fields(forest)}


NO_FOREST = Forest(
    np.zeros(1, np.int64),
    np.zeros(0, np.float32),
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint32),
    np.zeros((0, MAX_LEAVES), np.float32),
)
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
    starts, splits = forest.feature_starts, len(forest.thresholds)
    _require(0 < len(starts) <= MAX_FEATURES + 1, "number of features")
    _require(len(forest) <= MAX_TREES and forest.leaves.shape[1] == MAX_LEAVES, "shape of the leaf values")
    _require(len(forest.trees) == splits == len(forest.masks), "lengths of the splits' arrays")
    _require(splits <= len(forest) * (MAX_LEAVES - 1), "number of splits")
    _require(
        starts[0] == 0 and starts[-1] == splits and bool((starts[:-1] <= starts[1:]).all()), "order of the features"
    )
    _require(bool((forest.trees < len(forest)).all()), "a split of no tree")
    _require(bool(np.isfinite(forest.thresholds).all()), "a threshold that is no number")
    descents = np.flatnonzero(forest.thresholds[1:] < forest.thresholds[:-1]) + 1
    _require(bool(np.isin(descents, starts).all()), "order of the thresholds")
    left = np.full(len(forest), EVERY_LEAF)
    np.bitwise_and.at(left, forest.trees, forest.masks)
    _require(bool(left.all()), "a tree without a last leaf")
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
    return _predict_compiled(forest, features) if COMPILED else predict_tables(forest, features)


def predict_tables(forest: Forest, features: Float) -> Float:
    """`predict` by numpy alone, for where numba compiles nothing: some four times slower."""
    return table_scores(forest.tables, forest.leaves, features)


def _predict_compiled(forest: Forest, features: Float) -> Float:
    rows = features.shape[1]
    padded = np.empty((forest.features, -(-rows // LANES) * LANES), np.float32)
    padded[:, :rows] = features
    padded[:, rows:] = features[:, -1:]
    out = np.zeros(padded.shape[1], np.float32)
    add_scores(forest.feature_starts, forest.thresholds, forest.trees, forest.masks, forest.leaves, padded, out)
    return out[:rows]


def warm() -> None:
    """Compile, or load what an earlier process compiled: a second or two that no pick should wait for."""
    one_split = Forest(
        np.array([0, 1], np.int64),
        np.zeros(1, np.float32),
        np.zeros(1, np.uint32),
        np.full(1, 2, np.uint32),
        np.zeros((1, MAX_LEAVES), np.float32),
    )
    predict(one_split, np.zeros((1, LANES), np.float32))


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
    splits: list[tuple[int, float, int, int]] = []
    values = np.zeros((len(roots), MAX_LEAVES), np.float32)
    for tree, root in enumerate(roots):
        _flatten(root, tree, 0, splits, values)
    feature, threshold, trees, masks = np.array(sorted(splits), np.float64).reshape(-1, 4).T
    nearest = threshold.astype(np.float32)
    return Forest(
        np.searchsorted(feature, np.arange(features + 1)).astype(np.int64),
        np.where(nearest > threshold, np.nextafter(nearest, np.float32(-np.inf)), nearest),
        trees.astype(np.uint32),
        masks.astype(np.uint32),
        values,
    )


def _flatten(node: Node, tree: int, leaf: int, splits: list[tuple[int, float, int, int]], values: Float) -> int:
    """Note the splits and leaves under a node whose first leaf has this number; gives the number after its last."""
    if "leaf_value" in node:
        values[tree, SLOTS[leaf]] = node["leaf_value"]
        return leaf + 1
    middle = _flatten(node["left_child"], tree, leaf, splits, values)
    struck = (1 << middle) - (1 << leaf)
    splits.append((node["split_feature"], node["threshold"], tree, int(EVERY_LEAF) & ~struck))
    return _flatten(node["right_child"], tree, middle, splits, values)


def _require(met: bool, what: str) -> None:
    if not met:
        raise ValueError(f"forest: {what}")
