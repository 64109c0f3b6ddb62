"""The table that other processes read while it changes: its writer may be stopped between any two writes."""

from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.engines import linear_hashing
from picker.engines.linear_hashing import Table, empty_table, find, insert, interleaved


@given(keys=st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=40))
def test_while_a_bucket_is_split_every_row_is_found_after_every_write(keys: set[int]) -> None:
    table, _ = empty_table(64)
    rows = {key: insert(table, np.uint64(key)) for key in keys}
    writes = 0
    split: Any = linear_hashing._split

    class Watched(np.ndarray[Any, Any]):
        def __setitem__(self, at: Any, value: Any) -> None:
            nonlocal writes
            super().__setitem__(at, value)
            writes += 1
            assert {key: find(table, np.uint64(key)) for key in keys} == rows

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(linear_hashing, "fence", lambda: None)
        patched.setattr(linear_hashing, "prefetch", lambda array, row: None)
        split.py_func(Table(*(part.view(Watched) for part in table)))
    assert writes >= 2


def test_a_table_may_be_longer_than_the_machine_has_memory() -> None:
    (column,) = interleaved(2 * psutil.virtual_memory().total // 8, [np.uint64])
    column[-1] = 7
    assert column[0] == 0
    assert column[-1] == 7
