"""CPU time of one pick: `Router.pick` with the multiplicative or the learned policy, in process, single calls.

The router is as `picker serve` builds it and warm: every endpoint scraped, four requests in flight on each, the prefix
index full of the 64 groups that the requests share three quarters of their blocks with, the hot-prefix window full.
In text mode one index is asked, our own picks'; in exact mode two, the engines' KV events and our last two seconds.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bench.figures import Figure, quantile
from bench.learned import RULE, learned
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.metrics import EngineSample
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Api, Chain, Request
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import Router, Watcher

POOL_SIZES = (4, 64, 256, 1024)
BLOCKS, SHARED_BLOCKS, BLOCK_TOKENS = 64, 48, 16
GROUPS = 64
PER_ENDPOINT = 4
PICKS_PER_SECOND = 500.0

Matching = Literal["text", "exact"]


@dataclass(slots=True)
class Bench:
    """A warm router and an endless supply of requests; time is what we say it is."""

    router: Router
    requests: Iterator[Request]
    flights: deque[int] = field(default_factory=deque)
    now: float = 0.0

    def advance(self) -> Request:
        """The next request, at its time."""
        self.now += 1.0 / PICKS_PER_SECOND
        return next(self.requests)

    def times(self, count: int) -> tuple[list[float], list[float]]:
        """Microseconds of CPU of `count` picks, and of as many ends, the oldest first."""
        picks, ends = [], []
        clock = time.thread_time_ns
        for _ in range(count):
            request = self.advance()
            start = clock()
            decision = self.router.pick(request, None, self.now)
            middle = clock()
            self.router.first_byte(self.flights[0], self.now)
            self.router.ended(self.flights.popleft(), _outcome())
            end = clock()
            self.flights.append(decision.flight)
            picks.append((middle - start) / 1000)
            ends.append((end - middle) / 1000)
        return picks, ends


def warm(n: int, matching: Matching, watchers: Sequence[Watcher] = (), policy: str = RULE) -> Bench:
    """A router over `n` endpoints in the middle of its day; the learned policy's model is in charge."""
    rng = np.random.default_rng(0)
    events, picks, recent = PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0)
    made = learned(rng) if policy == "learned" else REGISTRY[policy]({}, rng)
    router = Router(made, PrefixHits(events, picks, recent), rng, watchers=watchers)
    kv_events = "tcp://127.0.0.1:1" if matching == "exact" else None
    router.update_pool(Endpoint(f"10.0.{i >> 8}.{i & 255}:8000", kv_events=kv_events) for i in range(n))
    groups = [_chain(rng, SHARED_BLOCKS) for _ in range(GROUPS)]
    bench = Bench(router, _requests(rng, groups, exact=matching == "exact"))
    for slot in router.pool.view.slots.tolist():
        sample = EngineSample(running=PER_ENDPOINT, waiting=0, kv_usage=rng.random(), block_size=16, num_blocks=65536)
        router.table.observe(slot, sample, now=0.0, own_most=PER_ENDPOINT)
        picks.set_capacity(slot, 65536)
        for group in rng.choice(GROUPS, 8, replace=False):
            if matching == "exact":
                events.store(slot, groups[group], groups[group])
            else:
                picks.touch(slot, groups[group], 0.0)
    for _ in range((PER_ENDPOINT + 2) * n + 100):
        bench.flights.append(router.pick(bench.advance(), None, bench.now).flight)
        if len(bench.flights) > PER_ENDPOINT * n:
            router.ended(bench.flights.popleft(), Outcome(status=200))
    return bench


def pick_us(n: int, matching: Matching, runs: int, picks: int, policy: str = RULE) -> tuple[Figure, Figure]:
    """Microseconds of a pick and of an end: per run the median of single calls, beside them the p99 over all."""
    bench = warm(n, matching, policy=policy)
    taken = [bench.times(picks) for _ in range(runs)]
    columns = ([run[0] for run in taken], [run[1] for run in taken])
    pick, end = (
        Figure(
            tuple(quantile(run, 0.5) for run in column),
            {"p99": quantile((value for run in column for value in run), 0.99)},
        )
        for column in columns
    )
    return pick, end


def _outcome() -> Outcome:
    """Of an answer of 8 tokens that came at once."""
    return Outcome(status=200, streamed=True, prompt_tokens=1024, cached_tokens=768, completion_tokens=8)


def _requests(rng: np.random.Generator, groups: list[Chain], *, exact: bool) -> Iterator[Request]:
    while True:
        chain = np.concatenate((groups[rng.integers(GROUPS)], _chain(rng, BLOCKS - SHARED_BLOCKS)))
        yield Request(
            api=Api.CHAT,
            model="sim",
            stream=True,
            prompt_tokens=float(BLOCKS * BLOCK_TOKENS),
            prompt_bytes=4 * BLOCKS * BLOCK_TOKENS,
            tokens_source="tokenizer" if exact else "ratio",
            chain=chain,
            block_tokens=float(BLOCK_TOKENS),
            exact=exact,
        )


def _chain(rng: np.random.Generator, blocks: int) -> Chain:
    return rng.integers(1, 1 << 63, blocks, dtype=np.uint64)
