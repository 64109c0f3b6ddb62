"""What the engines said last, for all workers: the collector writes it, each worker takes it into its own table."""

from pathlib import Path

import numpy as np

from picker.engines.ledger import Ledger
from picker.engines.table import HARDWARE, NEVER, RUNNING, WAITING, EngineTable
from picker.pool.view import PoolView
from picker.shared.by_key import ByKey
from picker.shared.memory import Kept
from picker.shared.mirror import Mirror, keys_of
from picker.shared.rows import Block, Values, attach, keep

STARTED_AT = HARDWARE
"""In shared rows: when the scrape began that told how many requests run and wait; -inf where none did. (What hardware
an engine runs on every worker knows from its labels, in classes of its own.)"""
_WIDTH = HARDWARE + 1
_EMPTY = np.append(NEVER[:HARDWARE], -np.inf)


def keep_engines(folder: Path, name: str) -> Kept:
    """Room for what the engines of one pool say."""
    return keep(folder, name, _WIDTH)


def engines_of(folder: Path, name: str, *, writes: bool = False) -> Block:
    """What they said. Raises OSError, ValueError as `rows.attach` does."""
    return attach(folder, name, _WIDTH, writes=writes)


class EngineRows:
    """The collector's side. A row stays its endpoint's when the collector dies and another one begins."""

    def __init__(self, block: Block, table: EngineTable) -> None:
        self._rows, self._table = ByKey(block, _EMPTY), table
        self._column: Values = np.empty((_WIDTH, 1))
        self._keys = keys_of(PoolView())

    def follow(self, view: PoolView) -> None:
        """These are the slots of the table from now on; nobody else has a row any more."""
        self._keys = keys_of(view)
        self._rows.keep_only(self._keys.tolist())

    def publish(self, slot: int, started_at: float) -> None:
        """A scrape of this slot that began at `started_at` is in the table; -inf where it did not tell of requests."""
        self._column[:HARDWARE, 0] = self._table.columns[:HARDWARE, slot]
        self._column[STARTED_AT, 0] = started_at
        self._rows.publish(int(self._keys[slot]), self._column)


class EngineNews:
    """A worker's side: brings its table and its ledger up to date."""

    def __init__(self, block: Block, table: EngineTable, ledger: Ledger) -> None:
        self._table, self._ledger = table, ledger
        self._mirror = Mirror([block], _EMPTY, np.zeros(_WIDTH, np.bool_))
        self._observed: dict[int, float] = {}

    def follow(self, view: PoolView, capacity: int) -> None:
        """These are the slots of table and ledger from now on."""
        self._mirror.follow(view, capacity)

    def take(self) -> None:
        """Take over what is new."""
        mirror = self._mirror
        mirror.refresh()
        slots = np.flatnonzero(mirror.changed)
        if not len(slots):
            return
        mirror.changed[slots] = False
        self._table.columns[:HARDWARE, slots] = mirror.columns[:HARDWARE, slots]
        for slot in slots.tolist():
            running, waiting, started_at = mirror.columns[[RUNNING, WAITING, STARTED_AT], slot].tolist()
            if started_at > self._observed.get(slot, -np.inf):  # each scrape corrects once
                self._observed[slot] = started_at
                self._ledger.observe(slot, running, waiting, started_at)
