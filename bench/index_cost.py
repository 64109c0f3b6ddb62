"""The prefix index by itself: lookup per pool size, memory per pair, the price of a clear, KV blocks per second.

    python -m bench.index_cost [--pairs 10000000] [--json | --picks]

Memory and clear are measured in a process of their own, once with every block on one endpoint (the dearest case) and
once on eight. The lookup's chain has 256 blocks that every endpoint holds (also the dearest case), beside the other
pairs. --json prints one line {"kv_blocks_per_s", "index_bytes_per_pair", "lookup_us": {N: us}} and nothing else.

--picks prints instead what a pick asks of the index of own picks, full with so many blocks on eight endpoints: CPU
microseconds, the tenth percentile, of `matched` and then `touch` for 128 blocks of which 32 are new, and of a `touch`
by itself for 128 that are known; at once, and after 4 MB and 64 MB of other memory were read.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import psutil

from bench.kv_index import kv_blocks_per_s
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.requests.request import Chain

SIZES = (4, 64, 256, 1024)
CHAIN = 256
BATCH = 1000
ENDPOINTS = 1024


def filled(pairs: int, holders: int) -> dict[str, float]:
    """Fill an index with `pairs` pairs, each block on `holders` endpoints; what it weighs and costs."""
    process = psutil.Process()
    PrefixIndex().warm()
    index, rng = PrefixIndex(), np.random.default_rng(0)
    before, longest = process.memory_info().rss, 0.0
    for i in range(pairs // BATCH // holders):
        blocks = rng.integers(1, 1 << 63, BATCH, dtype=np.uint64)
        for holder in range(holders):
            start = time.perf_counter()
            index.store((i + holder * ENDPOINTS // holders) % ENDPOINTS, blocks ^ np.uint64(1), blocks)
            longest = max(longest, time.perf_counter() - start)
    figures = {
        "pairs": len(index),
        "bytes_per_pair": (process.memory_info().rss - before) / len(index),
        "longest_store_ms": 1e3 * longest,
    }
    figures |= {f"lookup_us_{n}": us for n, us in lookups(index, rng).items()}
    start = time.perf_counter()
    index.clear(0)
    return figures | {"clear_us": 1e6 * (time.perf_counter() - start)}


def lookups(index: PrefixIndex, rng: np.random.Generator, repeats: int = 500) -> dict[int, float]:
    """Median microseconds of one `matched`, per number of endpoints."""
    chain = rng.integers(1, 1 << 63, CHAIN, dtype=np.uint64)
    for slot in range(max(SIZES)):
        index.store(slot, chain, chain)
    times: dict[int, float] = {}
    for n in SIZES:
        slots, taken = np.arange(n, dtype=np.intp), []
        for _ in range(repeats):
            start = time.perf_counter_ns()
            index.matched(chain, slots)
            taken.append((time.perf_counter_ns() - start) / 1000)
        times[n] = statistics.median(taken)
    return times


def picks(blocks: int, repeats: int = 300) -> dict[str, float]:
    """What `--picks` prints."""
    ApproximateIndex().warm()
    index, rng = ApproximateIndex(), np.random.default_rng(0)
    slots, other, figures = np.arange(8, dtype=np.intp), np.ones(8 << 20, np.uint64), dict[str, float]()
    groups = [rng.integers(1, 1 << 63, 128, dtype=np.uint64) for _ in range(64)]
    for slot in range(len(slots)):
        index.set_capacity(slot, blocks // len(slots))
        for _ in range(blocks // len(slots) // BATCH + 1):
            index.touch(slot, rng.integers(1, 1 << 63, BATCH, dtype=np.uint64), 0.0)
        for group in groups:
            index.touch(slot, group, 0.0)

    def us(slot: int, chain: Chain, touch: bool) -> float:
        start = time.thread_time_ns()
        if touch:
            index.touch(slot, chain, 0.0)
        else:
            index.matched(chain, slots, 0.0)
        return (time.thread_time_ns() - start) / 1000

    for megabytes in (0, 4, 64):
        taken = []
        for i in range(repeats):
            slot, known = i % len(slots), groups[7 * i % len(groups)]
            mixed = np.concatenate((known[:96], rng.integers(1, 1 << 63, 32, dtype=np.uint64)))
            other[: megabytes << 17 : 8].sum()
            pick = us(slot, mixed, False), us(slot, mixed, True)
            other[: megabytes << 17 : 8].sum()
            taken.append((*pick, us(slot, groups[(7 * i + 31) % len(groups)], True)))
        for name, value in zip(("matched", "touch", "touch_known"), np.quantile(taken, 0.1, axis=0), strict=True):
            figures[f"{name}_us_after_{megabytes}_mb"] = float(value)
    return figures


def in_a_process(pairs: int, holders: int) -> dict[str, float]:
    """`filled`, in a process of its own."""
    argv = [sys.executable, "-m", "bench.index_cost", "--fill", str(holders), "--pairs", str(pairs)]
    figures: dict[str, float] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picks", action="store_true")
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        print(json.dumps(filled(options.pairs, options.fill)))
        return
    if options.picks:
        for name, value in picks(options.pairs).items():
            print(f"{name:<28}{value:>8,.1f}")
        return
    one = in_a_process(options.pairs, 1)
    blocks_per_s = round(kv_blocks_per_s(runs=3, batches=2048).median)
    if options.json:
        record = {
            "kv_blocks_per_s": blocks_per_s,
            "index_bytes_per_pair": round(one["bytes_per_pair"], 2),
            "lookup_us": {str(n): round(one[f"lookup_us_{n}"], 1) for n in SIZES},
        }
        print(json.dumps(record))
        return
    print(f"KV blocks per CPU second: {blocks_per_s:,}")
    for holders, figures in ((1, one), (8, in_a_process(options.pairs, 8))):
        print(f"each block on {holders} of {ENDPOINTS} endpoints:")
        for name, value in figures.items():
            print(f"  {name:<20}{value:>14,.1f}")


if __name__ == "__main__":
    main()
