"""What sharing costs: the index as its readers see it, the rows of requests in flight, and where prompts were placed.

    python -m bench.shared_index [--pairs 20000000] [--json]

The index lies in shared memory as the collector keeps it, every block on one endpoint of 1,024 (the dearest case), and
is read through a second mapping, as workers read it. Memory is what the index, its shared part included, adds to the
process, per (block, endpoint) pair. The lookup's chain has 256 blocks that every endpoint holds. Times are medians of
CPU microseconds. `seen` is what a pick reads of the ledgers, after another worker changed one row; `reserve` is what it
writes. Of one placed prompt of so many blocks, among 64 endpoints, `touch` is what its worker writes, `take` what the
collector takes in (where many come at once: `take_of_many`), and `find` what another worker reads of it; `..._alone`
are those of a process alone.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.ledger import Ledger
from picker.pool.view import Endpoint, Pool, PoolView
from picker.shared.flights import SharedFlights, flights_of, keep_flights
from picker.shared.index import IndexReader, SharedShelf
from picker.shared.picks import PicksOfAll, SharedPicks
from picker.shared.placements import local_ring
from picker.shared.told import Told

ENDPOINTS, CHAIN, BATCH = 1024, 256, 1000
SIZES = (4, 64, 256, 1024)
PROMPTS = (8, 128)


def view_of(count: int) -> PoolView:
    """That many endpoints."""
    return Pool().replace(Endpoint(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:8000") for i in range(count)).view


def cpu_us(call: Callable[[], object], repeats: int, before: Callable[[], None] = lambda: None) -> float:
    """Median CPU time of one call; `before` each, not counted, something else."""
    taken = []
    for _ in range(repeats):
        before()
        start = time.thread_time_ns()
        call()
        taken.append((time.thread_time_ns() - start) / 1000)
    return statistics.median(taken)


def index_figures(folder: Path, pairs: int, rng: np.random.Generator) -> dict[str, float]:
    """Memory and lookups of a shared index with so many pairs."""
    process, most = psutil.Process(), max(32_000_000, pairs)
    PrefixIndex().warm()
    view = view_of(ENDPOINTS)
    shelf = SharedShelf(folder, "index", most)
    shelf.follow(view)
    before = process.memory_info().rss
    index = PrefixIndex(most, shelf=shelf)
    for i in range(pairs // BATCH):
        blocks = rng.integers(1, 1 << 63, BATCH, dtype=np.uint64)
        index.store(i % ENDPOINTS, blocks ^ np.uint64(1), blocks)
    figures = {"pairs": float(len(index)), "bytes_per_pair": (process.memory_info().rss - before) / len(index)}
    chain = rng.integers(1, 1 << 63, CHAIN, dtype=np.uint64)
    for slot in range(ENDPOINTS):
        index.store(slot, chain, chain)
    reader = IndexReader()
    reader.follow(view, ENDPOINTS)
    reader.read(folder, "index", most)
    for count in SIZES:
        figures[f"lookup_us_{count}"] = cpu_us(partial(reader.matched, chain, np.arange(count, dtype=np.intp)), 500)
    shelf.close()
    return figures


def flight_figures(folder: Path, count: int) -> dict[str, float]:
    """What a pick reads and writes of `count` endpoints, with one other worker and alone."""
    kept = [keep_flights(folder, name) for name in ("ours", "theirs")]
    view, slots, numbers = view_of(count), np.arange(count, dtype=np.intp), itertools.count(1)
    blocks = [flights_of(folder, name, writes=True) for name in ("ours", "theirs")]
    ours, theirs = SharedFlights(blocks[0], [blocks[1]]), SharedFlights(blocks[1], [blocks[0]])
    shared, other, alone = Ledger(sharing=ours), Ledger(sharing=theirs), Ledger()
    for ledger in (shared, other, alone):
        ledger.ensure(count)
    for flights in (ours, theirs):
        flights.follow(view, count)

    def reserve(ledger: Ledger) -> None:
        number = next(numbers)
        ledger.reserve(number, number % count, 100, 300, 0.0)

    def change() -> None:
        reserve(other)

    figures = {
        f"seen_us_{count}": cpu_us(partial(shared.seen, slots), 1000, before=change),
        f"seen_alone_us_{count}": cpu_us(partial(alone.seen, slots), 1000),
        f"reserve_us_{count}": cpu_us(partial(reserve, shared), 1000),
        f"reserve_alone_us_{count}": cpu_us(partial(reserve, alone), 1000),
    }
    for piece in kept:
        piece.close()
    return figures


def placement_figures(folder: Path, blocks: int, rng: np.random.Generator) -> dict[str, float]:
    """What a prompt of so many blocks costs: its worker, the collector, another worker, and a process alone."""
    ring, most, slots, repeats = local_ring(), 2_000_000, np.arange(64, dtype=np.intp), 1000
    picks, recent = (SharedShelf(folder, name, most) for name in ("picks", "recent"))
    known = np.zeros(1, np.int64)
    collector, alone = PicksOfAll([ring], known, picks, recent, max_blocks=most), ApproximateIndex()
    writes, reads = SharedPicks(Told(ring), recent=False), SharedPicks(Told(local_ring()), recent=False)
    change = Pool().replace(view_of(len(slots)).endpoints)
    collector.follow(change)
    collector.warm()
    for worker in (writes, reads):
        worker.follow(change.view, len(slots))
        worker.warm()
    reads.read(folder, "picks", most, known, 0.0)
    prompts = rng.integers(1, 1 << 63, (repeats, blocks), dtype=np.uint64)
    on = rng.integers(len(slots), size=repeats).tolist()
    first, again, third = (iter(zip(on, prompts, [0.0] * repeats, strict=True)) for _ in range(3))
    fourth, fifth = iter(prompts), iter(prompts)

    def place_all() -> None:
        fresh = rng.integers(1, 1 << 63, (repeats, blocks), dtype=np.uint64)
        for slot, chain in zip(on, fresh, strict=True):
            writes.touch(slot, chain, 0.0)

    figures = {
        "touch": cpu_us(lambda: writes.touch(*next(first)), repeats),
        "take": cpu_us(lambda: collector.take(0.0), repeats, before=lambda: writes.touch(*next(again))),
        "touch_alone": cpu_us(lambda: alone.touch(*next(third)), repeats),
    }
    for prompt in prompts:  # the pages of what is read are there, as they are in a process that has read for a while
        reads.matched(prompt, slots, 0.0)
    figures |= {
        "find": cpu_us(lambda: reads.matched(next(fourth), slots, 0.0), repeats),
        "find_alone": cpu_us(lambda: alone.matched(next(fifth), slots, 0.0), repeats),
        "take_of_many": cpu_us(lambda: collector.take(0.0), 9, before=place_all) / repeats,
    }
    for shelf in (picks, recent):
        shelf.close()
    return {f"{name}_us_{blocks}": figure for name, figure in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="picker-") as name:
        figures = index_figures(Path(name), options.pairs, np.random.default_rng(0))
        for count in SIZES:
            figures |= flight_figures(Path(name), count)
        for blocks in PROMPTS:
            figures |= placement_figures(Path(name), blocks, np.random.default_rng(0))
    if options.json:
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:<24}{value:>16,.2f}")


if __name__ == "__main__":
    main()
