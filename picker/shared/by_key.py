"""Rows of a block given out by the endpoint's key, so that an endpoint's row outlives whoever writes it."""

from collections.abc import Iterable

import numpy as np

from picker.shared.rows import CAPACITY, USED, Block, Values, publish, writing


class ByKey:
    """The writer's side of a block. Rows that the block holds already stay their endpoints'.

    `empty`, shape (width,), is the row of nobody. An endpoint for which there is no room left has none.
    """

    def __init__(self, block: Block, empty: Values) -> None:
        self._block, self._writing, self._empty = block, writing(block), np.ascontiguousarray(empty[:, None])
        self._rows: dict[int, int] = {}
        self._free: list[int] = []
        for row in range(int(block.head[USED])):
            key = int(block.keys[row, block.counts[row] & 1])
            if key and key not in self._rows:
                self._rows[key] = row
            else:
                self._free.append(row)

    def publish(self, key: int, column: Values) -> None:
        """The row of `key` is `column`, shape (width, 1)."""
        row = self._rows.get(key)
        if row is None:
            row = self._free.pop() if self._free else len(self._rows)
            if row >= CAPACITY:
                return
            self._rows[key] = row
        publish(self._writing, row, np.uint64(key), column, 0)

    def keep_only(self, keys: Iterable[int]) -> None:
        """Nobody else has a row any more."""
        for gone in set(self._rows) - set(keys):
            row = self._rows.pop(gone)
            publish(self._writing, row, np.uint64(0), self._empty, 0)
            self._free.append(row)
