"""The requests in flight of all workers: each publishes the sums of its own ledger and adds up those of the others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picker.engines.ledger import EMPTY, SINCE
from picker.pool.view import PoolView
from picker.shared.memory import Kept
from picker.shared.mirror import Mirror, keys_of
from picker.shared.rows import CAPACITY, Block, Keys, Values, attach, keep, local, publish, vacate

_LEAST = np.isin(np.arange(len(EMPTY)), SINCE)


def keep_flights(folder: Path, name: str) -> Kept:
    """Room for the flights of one worker in one pool."""
    return keep(folder, name, len(EMPTY))


def flights_of(folder: Path, name: str, *, writes: bool = False) -> Block:
    """One worker's flights. Raises OSError, ValueError as `rows.attach` does."""
    return attach(folder, name, len(EMPTY), writes=writes)


def local_flights() -> Block:
    """Flights that this process alone looks at."""
    return local(len(EMPTY))


def land_all(flights: Block) -> None:
    """The worker that wrote here is gone, and with it all that it counted."""
    vacate(flights, EMPTY)


def mirror_of(flights: Sequence[Block]) -> Mirror:
    """The sums over these workers."""
    return Mirror(flights, EMPTY, _LEAST)


class SharedFlights:
    """One worker's side: what its ledger tells, and what the ledgers of the others told. Neither call waits."""

    def __init__(self, own: Block, others: Sequence[Block]) -> None:
        self._own = own
        land_all(own)
        self._mirror = mirror_of(others)
        self._keys: Keys = np.zeros(0, np.uint64)
        column = np.ascontiguousarray(EMPTY[:, None])
        publish(own, 0, np.uint64(0), column, 0)  # compiled here, not at the first pick

    def follow(self, view: PoolView, capacity: int) -> None:
        """The slots of our ledger are these endpoints' from now on."""
        self._keys = keys_of(view)
        self._mirror.follow(view, capacity)

    def publish(self, columns: Values, slot: int) -> None:
        """Our flights on `slot` are `columns[:, slot]`."""
        if slot < min(CAPACITY, len(self._keys)) and self._keys[slot]:
            publish(self._own, slot, self._keys[slot], columns, slot)

    def others(self) -> Values:
        """The flights of all others by our slots, as of now; shape (9, slots)."""
        self._mirror.refresh()
        return self._mirror.columns
