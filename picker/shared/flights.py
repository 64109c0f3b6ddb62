"""The requests in flight of all workers: each publishes the sums of its own ledger and adds up those of the others."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picker.engines.kernels import kernel
from picker.engines.ledger import EMPTY, SINCE
from picker.engines.table import Columns
from picker.pool.view import PoolView, Slots
from picker.shared.memory import Kept
from picker.shared.mirror import Mirror, Together, keys_of, renew
from picker.shared.rows import CAPACITY, Block, Keys, Values, attach, keep, local, publish, vacate, writing

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
        self._own, self._writing = own, writing(own)
        land_all(own)
        self._mirror = mirror_of(others)
        self._keys: Keys = np.zeros(0, np.uint64)
        column = np.ascontiguousarray(EMPTY[:, None])
        # Compiled here, not at the first pick.
        publish(self._writing, 0, np.uint64(0), column, 0)
        self.seen(column, np.zeros(1, np.intp))

    def follow(self, view: PoolView, capacity: int) -> None:
        """The slots of our ledger are these endpoints' from now on."""
        self._keys = keys_of(view)
        self._mirror.follow(view, capacity)

    def publish(self, columns: Values, slot: int) -> None:
        """Our flights on `slot` are `columns[:, slot]`."""
        if slot < min(CAPACITY, len(self._keys)) and self._keys[slot]:
            publish(self._writing, slot, self._keys[slot], columns, slot)

    def seen(self, own: Columns, slots: Slots) -> Columns:
        """The flights of all on these slots, shape (9, N), ours being those in `own`, shape (9, slots)."""
        together: Columns = _seen(self._mirror.bundle, self._mirror.columns, own, slots)
        return together


@kernel
def _seen(mirror: Together, others: Columns, own: Columns, slots: Slots) -> Columns:
    renew(mirror)
    both = np.empty((len(own), len(slots)))
    for j in range(len(slots)):
        if slots[j] >= own.shape[1]:
            raise IndexError("no such slot")
        for i in range(len(own)):
            ours, theirs = own[i, slots[j]], others[i, slots[j]] if slots[j] < others.shape[1] else EMPTY[i]
            both[i, j] = min(ours, theirs) if _LEAST[i] else ours + theirs
    return both
