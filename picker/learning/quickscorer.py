"""Scores of many small trees at once, without walking one: bits for leaves, as in QuickScorer (SIGIR 2015), two ways.

A split that sends a row right strikes out the leaves to its left; when all splits of a tree have spoken, the first leaf
left is the row's. In what order they speak does not matter, so nothing branches: every split is put to all rows of a
batch, at the speed of comparing and masking them sixteen at a time, and the time depends on sizes alone.

Rows go to the right of a split where their value is greater than its threshold. Leaf i of a tree lies at column
SLOTS[i] of the leaf values: the place to which a multiplication by a de Bruijn sequence sends the i-th bit, so that no
bits are counted.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.linear_hashing import kernel

Float = NDArray[np.float32]
Bits = NDArray[np.uint32]
Indices = NDArray[np.uint32]

MAX_LEAVES = 32
LANES = 16
"""Numbers of 32 bits in the widest register: batches of a multiple are scored at full speed."""
BLOCK = 256
"""Rows scored at a time, so that they stay in the first-level cache."""
AT_ONCE = 2
"""Splits put to the rows in one pass over their bits; those of a tree come in a multiple."""
EVERY_LEAF = np.uint32(0xFFFF_FFFF)
_DE_BRUIJN, _ONE, _SHIFT = np.uint32(0x077C_B531), np.uint32(1), np.uint32(27)
SLOTS = np.array([(((1 << leaf) * int(_DE_BRUIJN)) & 0xFFFF_FFFF) >> 27 for leaf in range(MAX_LEAVES)], np.intp)


@kernel
def add_scores(
    split_features: Indices, thresholds: Float, masks: Bits, leaves: Float, features: Float, out: Float
) -> None:
    """Add to each row of a batch what T trees of S splits say of it. For use in other kernels: nothing is checked.

    split_features, thresholds, masks: (T, S), S even; leaves: (T, MAX_LEAVES); features: (F, N), finite, every split's
    feature below F; out: (N,).
    """
    bits = np.empty(BLOCK, np.uint32)
    for at in range(0, features.shape[1], BLOCK):
        end = min(at + BLOCK, features.shape[1])
        left, scores = bits[: end - at], out[at:end]
        for tree in range(len(leaves)):
            left[:] = EVERY_LEAF
            for split in range(0, split_features.shape[1], AT_ONCE):
                x, x_most, x_mask = split_features[tree, split], thresholds[tree, split], masks[tree, split]
                y, y_most, y_mask = split_features[tree, split + 1], thresholds[tree, split + 1], masks[tree, split + 1]
                xs, ys = features[x, at:end], features[y, at:end]
                for i in range(len(left)):
                    by_x = x_mask if xs[i] > x_most else EVERY_LEAF
                    by_y = y_mask if ys[i] > y_most else EVERY_LEAF
                    left[i] = np.uint32(left[i] & by_x & by_y)
            values = leaves[tree]
            for i in range(len(left)):
                first = np.uint32(left[i] & np.uint32(~left[i] + _ONE))
                scores[i] += values[np.uint32(first * _DE_BRUIJN) >> _SHIFT]


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
