"""Scores of many small trees at once, without walking one: QuickScorer (Lucchese et al., SIGIR 2015), two ways.

A bit per leaf. A split that sends a row right strikes out the leaves to its left; when every split has spoken, the
first leaf left is the row's. Splits are kept by feature, not by tree, so all rows of a batch are held to one threshold
at a time, and those whose threshold lies above the batch's greatest value are never looked at.

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
Starts = NDArray[np.int64]

MAX_LEAVES = 32
LANES = 16
"""Numbers of 32 bits in the widest register: batches of a multiple are scored at full speed."""
BLOCK = 128
"""Rows scored at a time, so that their leaves stay in the first-level cache."""
EVERY_LEAF = np.uint32(0xFFFF_FFFF)
_DE_BRUIJN, _ONE, _SHIFT = np.uint32(0x077C_B531), np.uint32(1), np.uint32(27)
SLOTS = np.array([(((1 << leaf) * int(_DE_BRUIJN)) & 0xFFFF_FFFF) >> 27 for leaf in range(MAX_LEAVES)], np.intp)


@kernel
def add_scores(
    feature_starts: Starts, thresholds: Float, trees: Bits, masks: Bits, leaves: Float, features: Float, out: Float
) -> None:
    """Add to each row of a batch what all T trees say of it. For use in other kernels: nothing is checked.

    feature_starts: (F + 1,), where each feature's splits begin; thresholds, trees, masks: per split, thresholds
    ascending within a feature; leaves: (T, MAX_LEAVES); features: (at least F, N), finite; out: (N,).
    """
    rows = features.shape[1]
    bits = np.empty((len(leaves), BLOCK), np.uint32)
    alike = np.empty(len(leaves), np.uint32)
    for at in range(0, rows, BLOCK):
        width = min(BLOCK, rows - at)
        bits[:] = EVERY_LEAF
        alike[:] = EVERY_LEAF
        for feature in range(len(feature_starts) - 1):
            values = features[feature, at : at + width]
            least = greatest = values[0]
            for i in range(width):
                least, greatest = min(least, values[i]), max(greatest, values[i])
            split, end = feature_starts[feature], feature_starts[feature + 1]
            while split < end and thresholds[split] < least:
                alike[trees[split]] &= masks[split]
                split += 1
            while split < end and thresholds[split] < greatest:
                threshold, mask, left = thresholds[split], masks[split], bits[trees[split]]
                for i in range(width):
                    left[i] = np.uint32(left[i] & (mask if values[i] > threshold else EVERY_LEAF))
                split += 1
        for tree in range(len(leaves)):
            values, left, common = leaves[tree], bits[tree], alike[tree]
            for i in range(width):
                alive = np.uint32(left[i] & common)
                first = np.uint32(alive & np.uint32(~alive + _ONE))
                out[at + i] += values[np.uint32(first * _DE_BRUIJN) >> _SHIFT]


COMPILED = hasattr(add_scores, "py_func")
"""Whether numba compiles here (NUMBA_DISABLE_JIT); interpreted, the kernel would take a second."""


class Tables(NamedTuple):
    """The same trees for numpy alone: all that a feature's splits can say together, looked up by the value's rank."""

    cuts: tuple[Float, ...]
    """Per feature: its thresholds, ascending, each once."""
    left: tuple[Bits, ...]
    """Per feature, (cuts + 1, T): leaves left once so many of its thresholds are exceeded."""


def tables(feature_starts: Starts, thresholds: Float, trees: Bits, masks: Bits, leaves: Float) -> Tables:
    """Tables of trees as `add_scores` takes them."""
    cuts, left = [], []
    for start, end in zip(feature_starts[:-1].tolist(), feature_starts[1:].tolist(), strict=True):
        distinct, rank = np.unique(thresholds[start:end], return_inverse=True)
        by_rank = np.full((len(distinct) + 1, len(leaves)), EVERY_LEAF)
        np.bitwise_and.at(by_rank, (rank + 1, trees[start:end]), masks[start:end])
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
