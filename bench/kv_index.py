"""The prefix index under KV events: blocks per CPU second, and resident bytes per (block, endpoint) pair.

`python -m bench.kv_index PAIRS` fills an index in a process of its own and prints its bytes per pair.
"""

import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import count

import msgspec
import numpy as np
import psutil

from bench.figures import Figure
from picker.engines.index import PrefixIndex
from picker.engines.kv_stream import KvStream

ENGINES = 64
BATCH_BLOCKS, BLOCK_TOKENS = 32, 16
CACHE_BLOCKS = 2048
"""Each engine's cache: small, so that it is full soon and every block stored comes with one removed."""


def kv_blocks_per_s(runs: int, batches: int) -> Figure:
    """Blocks stored per CPU second, from message bytes to the index: decoding, hashing of token ids, lookup, removal.

    Batches are as vLLM sends them, one prompt's blocks in each; engines take turns.
    """
    index = PrefixIndex()
    index.warm()
    streams = [KvStream(slot, index, can_replay=False) for slot in range(ENGINES)]
    numbers = [0] * ENGINES
    payloads = [_payloads(random.Random(slot)) for slot in range(ENGINES)]

    def one(batches: int) -> float:
        waiting = [(i % ENGINES, next(payloads[i % ENGINES])) for i in range(batches)]
        start = time.process_time()
        for engine, payload in waiting:
            streams[engine].receive(numbers[engine], payload, now=float(numbers[engine]))
            numbers[engine] += 1
        return batches * BATCH_BLOCKS / (time.process_time() - start)

    one(2 * ENGINES * CACHE_BLOCKS // BATCH_BLOCKS)
    figure = Figure(tuple([one(batches) for _ in range(runs)]))
    if len(index) != ENGINES * CACHE_BLOCKS:
        raise RuntimeError(f"the index holds {len(index)} pairs, the engines {ENGINES * CACHE_BLOCKS}")
    return figure


def index_bytes_per_pair(runs: int, pairs: int) -> Figure:
    """Growth of resident memory per pair. Every block is on one endpoint only, which is the dearest case."""
    argv = [sys.executable, "-m", "bench.kv_index", str(pairs)]
    return Figure(tuple([float(subprocess.run(argv, check=True, capture_output=True).stdout) for _ in range(runs)]))


def _payloads(rng: random.Random) -> Iterator[bytes]:
    """What one engine publishes, for ever: new prompts, and the oldest blocks gone for them once its cache is full."""
    held: deque[int] = deque()
    for number in count(1):
        keys = [rng.getrandbits(63) for _ in range(BATCH_BLOCKS)]
        events: list[dict[str, object]] = []
        if len(held) >= CACHE_BLOCKS:
            dropped = [held.popleft() for _ in keys]
            events.append({"type": "BlockRemoved", "block_hashes": dropped, "medium": "GPU", "group_idx": 0})
        held.extend(keys)
        stored = {
            "type": "BlockStored",
            "block_hashes": keys,
            "parent_block_hash": None,
            "token_ids": [rng.randrange(128_000) for _ in range(BATCH_BLOCKS * BLOCK_TOKENS)],
            "block_size": BLOCK_TOKENS,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
            "extra_keys": [None] * BATCH_BLOCKS,
            "group_idx": 0,
        }
        yield msgspec.msgpack.encode([float(number), [*events, stored], 0])


def _fill(pairs: int) -> float:
    process = psutil.Process()
    PrefixIndex().warm()
    index, rng = PrefixIndex(), np.random.default_rng(0)
    before = process.memory_info().rss
    batch = 1000
    for i in range(pairs // batch):
        blocks = rng.integers(1, 1 << 63, batch, dtype=np.uint64)
        index.store(i % ENGINES, blocks ^ np.uint64(1), blocks)
    return (process.memory_info().rss - before) / len(index)


if __name__ == "__main__":
    print(_fill(int(sys.argv[1])))
