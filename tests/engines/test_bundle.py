from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.kernels import bare
from picker.engines.linear_hashing import interleaved


class Inner(NamedTuple):
    counts: NDArray[np.int64]
    grid: NDArray[np.float32]


class Outer(NamedTuple):
    keys: NDArray[np.uint64]
    inner: Inner
    marks: NDArray[np.uint32]


def outer(rows: int, columns: int) -> Outer:
    """Keys and marks lie side by side, row by row."""
    keys, marks = interleaved(rows, (np.uint64, np.uint32))
    return Outer(keys, Inner(np.zeros(rows, np.int64), np.zeros((2, columns), np.float32)), marks)


bundled, unbundled = bundling(outer(2, 2))


@bare
def numbered(bundle: Bundle) -> None:
    arrays = unbundled(bundle)
    for row in range(len(arrays.keys)):
        arrays.keys[row] = row + 1
        arrays.marks[row] = 10 * row
        arrays.inner.counts[row] = -row
    for column in range(arrays.inner.grid.shape[1]):
        arrays.inner.grid[1, column] = column / 2


def test_a_kernel_reads_and_writes_the_arrays_that_were_bundled() -> None:
    arrays = outer(4, 3)
    numbered(bundled(arrays))
    assert arrays.keys.tolist() == [1, 2, 3, 4]
    assert arrays.marks.tolist() == [0, 10, 20, 30]
    assert arrays.inner.counts.tolist() == [0, -1, -2, -3]
    assert arrays.inner.grid.tolist() == [[0, 0, 0], [0, 0.5, 1]]


def test_arrays_of_other_types_are_refused() -> None:
    arrays = outer(2, 2)
    with pytest.raises(TypeError):
        bundled(arrays._replace(keys=np.zeros(2, np.uint64)))
    with pytest.raises(TypeError):
        bundled(arrays._replace(marks=np.zeros(2, np.int32)))
