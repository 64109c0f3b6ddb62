"""Which pieces of shared memory a picker's processes have, and who writes to each.

The supervisor keeps all of them in the folder of the run. It writes only where nobody else does any more: to the rows
of a worker that died, before the next one starts.
"""

import contextlib
from pathlib import Path

from picker.server.options import ServeOptions
from picker.shared.flights import SharedFlights, flights_of, keep_flights, land_all


class KeptRows:
    """All pieces, made by the supervisor of `workers` workers over `pools` pools. Raises OSError."""

    def __init__(self, folder: Path, workers: int, pools: int) -> None:
        self._folder, self._pools = folder, pools
        self._pieces = contextlib.ExitStack()
        for pool in range(pools):
            for worker in range(workers):
                self._pieces.callback(keep_flights(folder, _flights(pool, worker)).close)

    def bury(self, worker: int) -> None:
        """This worker is dead: nothing of what it counted counts any more."""
        for pool in range(self._pools):
            land_all(flights_of(self._folder, _flights(pool, worker), writes=True))

    def close(self) -> None:
        """Give the memory back."""
        self._pieces.close()


def shared_flights(options: ServeOptions, pool: int) -> SharedFlights | None:
    """This worker's share in the flights of a pool; None for a worker on its own."""
    if options.workers == 1 or options.run_dir is None:
        return None
    others = [flights_of(options.run_dir, _flights(pool, i)) for i in range(options.workers) if i != options.worker]
    return SharedFlights(flights_of(options.run_dir, _flights(pool, options.worker), writes=True), others)


def _flights(pool: int, worker: int) -> str:
    return f"flights-{pool}-{worker}"
