"""Scores of many small trees at once, without walking one: bits for leaves, as in QuickScorer (SIGIR 2015), two ways.

A split that sends a row right strikes out the leaves to its left; when all splits of a tree have spoken, the first leaf
left is the row's. In what order they speak does not matter, so nothing branches: every split is put to all rows of a
block, at the speed of comparing and masking them a register at a time, and the time depends on sizes alone.

Rows go to the right of a split where their value is greater than its threshold. Leaf i of a tree lies at column
SLOTS[i] of the leaf values: the place to which a multiplication by a de Bruijn sequence sends the i-th bit, so that no
bits are counted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import kernel
from picker.learning.tree_code import AT_ONCE, DE_BRUIJN, LANES, MAX_LEAVES, add_tree

__all__ = ["AT_ONCE", "LANES", "MAX_LEAVES"]

Float = NDArray[np.float32]
Bits = NDArray[np.uint32]
Indices = NDArray[np.uint32]

EVERY_LEAF = np.uint32(0xFFFF_FFFF)
_DE_BRUIJN, _SHIFT = np.uint32(DE_BRUIJN), np.uint32(27)
SLOTS = np.array([(((1 << leaf) * DE_BRUIJN) & 0xFFFF_FFFF) >> 27 for leaf in range(MAX_LEAVES)], np.intp)


@kernel
def add_scores(
    split_features: Indices, thresholds: Float, masks: Bits, leaves: Float, features: Float, block: int, out: Float
) -> None:
    """Add to each row of a block what T trees of S splits say of it. For use in other kernels: nothing is checked.

    split_features, thresholds, masks: (T, S), S a multiple of AT_ONCE; leaves: (T, MAX_LEAVES); features: (blocks, F,
    LANES), every split's feature below F; out: (LANES,).
    """
    for tree in range(len(leaves)):
        add_tree(features, block, split_features, thresholds, masks, leaves, tree, out)


COMPILED = hasattr(add_scores, "py_func")
"""Whether numba compiles here (NUMBA_DISABLE_JIT); interpreted, the kernel would take a second."""


class Tables(NamedTuple):
    """The same trees for numpy alone: all that a feature's splits can say together, looked up by the value's rank."""

    cuts: tuple[Float, ...]
    """Per feature: its thresholds, ascending, each once."""
    left: tuple[Bits, ...]
    """Per feature, (cuts + 1, T): leaves left once so many of its thresholds are exceeded."""


def tables(split_features: Indices, thresholds: Float, masks: Bits, features: int) -> Tables:
    """Tables of trees over so many features, given as to `add_scores`."""
    cuts, left = [], []
    for feature in range(features):
        tree, split = np.nonzero(split_features == feature)
        distinct, rank = np.unique(thresholds[tree, split], return_inverse=True)
        by_rank = np.full((len(distinct) + 1, len(masks)), EVERY_LEAF)
        np.bitwise_and.at(by_rank, (rank + 1, tree), masks[tree, split])
        cuts.append(distinct)
        left.append(np.bitwise_and.accumulate(by_rank, axis=0))
    return Tables(tuple(cuts), tuple(left))


def table_scores(known: Tables, leaves: Float, features: Float) -> Float:
    """What the trees say of each row, shape (N,); features: (F, N)."""
    alive = np.full((features.shape[1], len(leaves)), EVERY_LEAF)
    for cuts, left, values in zip(known.cuts, known.left, features, strict=True):
        alive &= left[np.searchsorted(cuts, values)]
    first = alive & np.negative(alive)
    scores: Float = leaves[np.arange(len(leaves)), (first * _DE_BRUIJN) >> _SHIFT].sum(axis=1, dtype=np.float32)
    return scores
