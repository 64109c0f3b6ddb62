"""Which pieces of shared memory and which letters a picker's processes have, and who writes to each.

The supervisor keeps the memory in the folder of the run. It writes only where nobody else does any more: to the rows of
a worker that died, before the next one starts. Each worker writes its flights, the collector all the rest.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from picker.engines.index import DEFAULT_MAX_PAIRS
from picker.engines.table import EngineTable
from picker.server.options import ServeOptions
from picker.shared.engines import EngineRows, engines_of, keep_engines
from picker.shared.flights import flights_of, keep_flights, land_all, mirror_of
from picker.shared.index import IndexReader, SharedShelf
from picker.shared.letters import Box, Letter
from picker.shared.rows import Block


class KeptRows:
    """All pieces, made by the supervisor of `workers` workers over `pools` pools. Raises OSError."""

    def __init__(self, folder: Path, workers: int, pools: int) -> None:
        self._folder, self._pools = folder, pools
        self._pieces = contextlib.ExitStack()
        for pool in range(pools):
            self._pieces.callback(keep_engines(folder, _engines(pool)).close)
            for worker in range(workers):
                self._pieces.callback(keep_flights(folder, _flights(pool, worker)).close)

    def bury(self, worker: int) -> None:
        """This worker is dead: nothing of what it counted counts any more."""
        for pool in range(self._pools):
            land_all(flights_of(self._folder, _flights(pool, worker), writes=True))

    def close(self) -> None:
        """Give the memory back."""
        self._pieces.close()


@dataclass(frozen=True, slots=True)
class Standing:
    """How the watch of a pool stood `at` seconds of the monotonic clock; see `readiness.Watched`."""

    synced: bool
    pool_exists: bool
    silent_s: float
    at: float


class CollectorsShare:
    """What the collector reads and writes of one pool. Raises OSError, ValueError where there is no such memory."""

    def __init__(self, options: ServeOptions, pool: int) -> None:
        folder = run_folder(options)
        self._engines = engines_of(folder, _engines(pool), writes=True)
        self.flights = mirror_of([flights_of(folder, _flights(pool, worker)) for worker in range(options.workers)])
        self.directory = Letter(folder, f"directory-{pool}")
        self.standing = Letter(folder, f"standing-{pool}")
        self.adapters = Letter(folder, f"adapters-{pool}")
        self.index = Letter(folder, f"index-{pool}")
        self.index_name = f"index-{pool}-{os.getpid()}"
        self._folder = folder

    def shelf(self) -> SharedShelf:
        """Where to put an index of our own. Workers read it once a letter says its name. Raises OSError."""
        return SharedShelf(self._folder, self.index_name, DEFAULT_MAX_PAIRS)

    def engines(self, table: EngineTable) -> EngineRows:
        """Where scrapes are published that are in this table."""
        return EngineRows(self._engines, table)


class WorkersShare:
    """What a worker reads and writes of one pool. Raises OSError, ValueError where there is no such memory."""

    def __init__(self, options: ServeOptions, pool: int) -> None:
        folder, own = run_folder(options), options.worker
        self.own = flights_of(folder, _flights(pool, own), writes=True)
        self.others = [flights_of(folder, _flights(pool, i)) for i in range(options.workers) if i != own]
        self.engines: Block = engines_of(folder, _engines(pool))
        self.directory = Box(folder, f"directory-{pool}")
        self.standing = Box(folder, f"standing-{pool}")
        self.adapters = Box(folder, f"adapters-{pool}")
        self.index = IndexReader()
        self._index_name = Box(folder, f"index-{pool}")
        self._folder = folder

    def read_index(self) -> None:
        """Read a newer index, if there is one. Raises OSError, ValueError where its writer is gone already."""
        if (name := self._index_name.news()) is not None:
            self.index.read(self._folder, name.decode(), DEFAULT_MAX_PAIRS)


def run_folder(options: ServeOptions) -> Path:
    """Where the processes of one picker find each other. Raises ValueError where there is no such place."""
    if options.run_dir is None:
        raise ValueError("several workers need a folder to talk through")
    return options.run_dir


def _engines(pool: int) -> str:
    return f"engines-{pool}"


def _flights(pool: int, worker: int) -> str:
    return f"flights-{pool}-{worker}"
