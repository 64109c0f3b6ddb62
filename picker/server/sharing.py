"""Which pieces of shared memory and which letters a picker's processes have, and who writes to each.

The supervisor keeps the memory in the folder of the run. It writes only where nobody else does any more: to the rows of
a worker that died, before the next one starts. Each worker writes its flights and where it placed prompts, the
collector all the rest.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from picker.engines.index import DEFAULT_MAX_PAIRS
from picker.engines.table import EngineTable
from picker.pool.view import PoolView
from picker.server.options import ServeOptions
from picker.shared.engines import EngineRows, engines_of, keep_engines
from picker.shared.flights import flights_of, keep_flights, land_all, mirror_of
from picker.shared.index import IndexReader, SharedShelf
from picker.shared.letters import Box, Letter
from picker.shared.picks import MAX_BLOCKS, PicksOfAll, SharedPicks
from picker.shared.placements import keep_known, keep_ring, known_of, ring_of
from picker.shared.rows import Block
from picker.shared.told import Told


class KeptRows:
    """All pieces, made by the supervisor of `workers` workers over `pools` pools. Raises OSError."""

    def __init__(self, folder: Path, workers: int, pools: int) -> None:
        self._folder, self._pools = folder, pools
        self._pieces = contextlib.ExitStack()
        for pool in range(pools):
            self._pieces.callback(keep_engines(folder, _engines(pool)).close)
            for worker in range(workers):
                self._pieces.callback(keep_flights(folder, _flights(pool, worker)).close)
                self._pieces.callback(keep_ring(folder, _ring(pool, worker)).close)

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
        self.picks_told = Letter(folder, f"picks-{pool}")
        self.picks_name = f"picks-{pool}-{os.getpid()}"
        self._rings = [ring_of(folder, _ring(pool, worker)) for worker in range(options.workers)]
        self._kept_known = keep_known(folder, _known(self.picks_name), options.workers)
        self._folder = folder

    def shelf(self) -> SharedShelf:
        """Where to put an index of our own. Workers read it once a letter says its name. Raises OSError."""
        return SharedShelf(self._folder, self.index_name, DEFAULT_MAX_PAIRS)

    def picks_shelves(self) -> tuple[SharedShelf, SharedShelf]:
        """Where to put all workers' picks and their latest. Workers read them once a letter says so. Raises OSError."""
        names = self.picks_name, _recent(self.picks_name)
        return SharedShelf(self._folder, names[0], MAX_BLOCKS), SharedShelf(self._folder, names[1], MAX_BLOCKS)

    def picks(self, shelves: tuple[SharedShelf, SharedShelf]) -> PicksOfAll:
        """What takes in where the workers placed prompts."""
        known = known_of(self._folder, _known(self.picks_name), len(self._rings), writes=True)
        return PicksOfAll(self._rings, known, *shelves)

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
        ring = ring_of(folder, _ring(pool, own), writes=True)
        told = Told(ring)
        self.picks, self.recent = SharedPicks(told, recent=False), SharedPicks(told, recent=True)
        self._picks_name = Box(folder, f"picks-{pool}")
        self._folder, self._own, self._workers = folder, own, options.workers

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        for index in (self.index, self.picks, self.recent):
            index.follow(view, capacity)

    def kept_at(self, at: float) -> None:
        """The collector was at work at this time."""
        for picks in (self.picks, self.recent):
            picks.kept_at(at)

    def read_indexes(self, now: float) -> None:
        """Read newer indexes, if there are any. Raises OSError, ValueError where their writer is gone already."""
        for picks in (self.picks, self.recent):
            picks.forget_former(now)
        if (name := self._index_name.news()) is not None:
            self.index.read(self._folder, name.decode(), DEFAULT_MAX_PAIRS)
        if (name := self._picks_name.news()) is not None:
            told = name.decode()
            known = known_of(self._folder, _known(told), self._workers)[self._own : self._own + 1]
            self.picks.read(self._folder, told, MAX_BLOCKS, known, now)
            self.recent.read(self._folder, _recent(told), MAX_BLOCKS, known, now)


def run_folder(options: ServeOptions) -> Path:
    """Where the processes of one picker find each other. Raises ValueError where there is no such place."""
    if options.run_dir is None:
        raise ValueError("several workers need a folder to talk through")
    return options.run_dir


def _engines(pool: int) -> str:
    return f"engines-{pool}"


def _flights(pool: int, worker: int) -> str:
    return f"flights-{pool}-{worker}"


def _ring(pool: int, worker: int) -> str:
    return f"placements-{pool}-{worker}"


def _known(picks: str) -> str:
    return f"{picks}-known"


def _recent(picks: str) -> str:
    return f"{picks}-recent"
