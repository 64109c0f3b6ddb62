"""A model as the kernel takes it: all its arrays as one, of types that never change."""

from typing import NamedTuple

import numpy as np

from picker.engines.bundle import Bundle, bundling
from picker.engines.table import MAX_HARDWARE
from picker.learning.features import TPOT_TERMS, TREE_FEATURES, TTFT_TERMS, Matrix
from picker.learning.forest import NO_FOREST, Forest
from picker.learning.model import Model
from picker.learning.quickscorer import Bits, Float, Indices
from picker.learning.ranges import SLACK, bounds


class Arrays(NamedTuple):
    """A model as the kernel reads it."""

    ttft_base: Matrix
    """Shape (TTFT_TERMS, MAX_HARDWARE)."""
    tpot_base: Matrix
    lowest: Float
    """Shape (TREE_FEATURES,): below it the model guesses."""
    highest: Float
    ttft_splits: Indices
    ttft_thresholds: Float
    ttft_masks: Bits
    ttft_leaves: Float
    tpot_splits: Indices
    tpot_thresholds: Float
    tpot_masks: Bits
    tpot_leaves: Float


class Ready(NamedTuple):
    """A model as the kernel takes it."""

    bundle: Bundle
    arrays: Arrays
    """Where it points to."""


def ready(model: Model) -> Ready:
    """Made once per model. Raises ValueError for trees of other features."""
    arrays = _arrays(model)
    return Ready(_bundled(arrays), arrays)


def _arrays(model: Model) -> Arrays:
    for forest in (model.ttft_trees, model.tpot_trees):
        if len(forest) and forest.features != len(TREE_FEATURES):
            raise ValueError(f"trees of {forest.features} features, not {len(TREE_FEATURES)}")
    lowest, highest = bounds(model.lowest, model.highest, SLACK)
    # Copied, since what was sent may not be written to, which is another type.
    return Arrays(
        np.array(model.ttft_base.T, order="C"),
        np.array(model.tpot_base.T, order="C"),
        lowest,
        highest,
        *_trees(model.ttft_trees),
        *_trees(model.tpot_trees),
    )


def _trees(forest: Forest) -> tuple[Indices, Float, Bits, Float]:
    return forest.split_features.copy(), forest.thresholds.copy(), forest.masks.copy(), forest.leaves.copy()


def blank() -> Model:
    """One that says nothing."""
    ttft, tpot = np.zeros((MAX_HARDWARE, len(TTFT_TERMS))), np.zeros((MAX_HARDWARE, len(TPOT_TERMS)))
    bound = np.zeros(len(TREE_FEATURES), np.float32)
    return Model(0, 0, ttft, tpot, NO_FOREST, NO_FOREST, bound, bound)


_bundled, unbundled = bundling(_arrays(blank()))
