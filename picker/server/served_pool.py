"""One pool as it is served: router, indexes, reader, the watch of its engines, learning, and its metrics."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog

from picker.engines import ledger, snapshot
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.ledger import Ledger
from picker.engines.table import EngineTable
from picker.policies import multiplicative
from picker.policies.learned import Learned
from picker.policies.policy import Plans, innermost
from picker.policies.registry import REGISTRY
from picker.pool.default_engine import with_engine
from picker.pool.directory import Directory
from picker.pool.view import Endpoint, PoolView
from picker.requests.reader import Reader, ReaderSettings
from picker.routing import choice
from picker.routing.hits import PrefixHits
from picker.routing.router import Router, RouterSettings
from picker.server.admin import Source
from picker.server.cache_config import cache_config
from picker.server.config import PickerConfig
from picker.server.engine_watch import EngineWatch
from picker.server.learning import Learning
from picker.server.options import ServeOptions
from picker.server.service import Service
from picker.server.shared_learning import SharedLearning
from picker.server.sharing import WorkersShare
from picker.shared.flights import SharedFlights, local_flights
from picker.shared.index import IndexReader
from picker.shared.picks import SharedPicks
from picker.telemetry.endpoints import EndpointTallies
from picker.telemetry.metrics import PoolMetrics, RequestMetrics
from picker.telemetry.older_names import OlderNames
from picker.telemetry.sources import IndexMetrics

if TYPE_CHECKING:
    from picker.server.replicas import Replicas

log = structlog.get_logger(__name__)

UPKEEP_S = 0.5


@dataclass(frozen=True, slots=True)
class Lane:
    """Which of all flight numbers are whose: those of worker w and pool p leave w + p * workers over lanes."""

    worker: int = 0
    workers: int = 1
    pool: int = 0
    pools: int = 1

    @property
    def number(self) -> int:
        return self.worker + self.pool * self.workers

    @property
    def lanes(self) -> int:
        return self.workers * self.pools


class ServedPool:
    """The parts of one pool in one worker, in the order in which they are built."""

    def __init__(self, name: str, options: ServeOptions, config: PickerConfig, lane: Lane) -> None:
        self.name, self._config = name, config
        settings = config.settings
        rng = np.random.default_rng(options.seed)
        self.metrics, self.tallies = RequestMetrics(), EndpointTallies()
        policy = REGISTRY[options.policy]({}, rng) if options.policy else config.make_policy(rng)
        # Of several workers none watches engines: their collector does, and they read its tables and its index.
        table, self.share = EngineTable(), WorkersShare(options, lane.pool) if options.workers > 1 else None
        if self.share is None:
            index: PrefixIndex | IndexReader = PrefixIndex(salt=secrets.randbits(64))
            self.picks: ApproximateIndex | SharedPicks = ApproximateIndex()
            recent: ApproximateIndex | SharedPicks = ApproximateIndex(ttl_s=2.0)
        else:
            index, self.picks, recent = self.share.index, self.share.picks, self.share.recent
        self._replicas, self._flights = self._among_others(options, lane)
        self.learning: Learning | None = None
        inner = innermost(policy)
        if isinstance(inner, Learned):
            folder = options.state_dir or (Path(settings.state_dir) if settings.state_dir else None)
            self.learning = Learning(inner, table, time.monotonic, _state_file(folder, name, lane))
            if self._replicas is not None:
                shared = SharedLearning(self.learning.loop, inner.learner, table, self._replicas)
                self._replicas.learn = shared.hear
        self.router = Router(
            policy,
            PrefixHits(index, self.picks, recent),
            rng,
            # Flights start at the clock's microseconds: Envoy may still speak of those of the process before this one.
            settings=RouterSettings(
                settings.destinations, worker=lane.number, workers=lane.lanes, first_flight=time.time_ns() // 1000
            ),
            table=table,
            ledger=Ledger(sharing=self._flights),
            watchers=(
                self.metrics,
                self.tallies,
                *([self.learning.metrics] if self.learning else []),
                *([self._replicas] if self._replicas else []),
            ),
            admits=config.admission(),
            later=_after_the_answer,
            failed=_left_behind,
        )
        self.reader = Reader(
            ReaderSettings(
                max_body_bytes=settings.max_body_bytes,
                steering=settings.steering_fields,
                tokenizers={model: Path(folder) for model, folder in settings.models.items()},
                adapters=settings.adapters,
            ),
            draw=rng.random,
        )
        self.service = Service(
            self.reader,
            self.router,
            self.metrics,
            config.exchange_settings(),
            honour_subset=not options.disable_endpoint_subset_filter,
            emit_scores=options.emit_endpoint_scores,
        )
        self._left_out: frozenset[str] = frozenset()
        self._watch: EngineWatch | None = None
        if isinstance(index, PrefixIndex):
            self._watch = EngineWatch(table, self.router.ledger, index, options, config)

    def sources(self) -> list[Source]:
        """Its metrics."""
        sources: list[Source] = [
            self.metrics,
            PoolMetrics(self.router, self.name),
            *(self._watch.sources(self.router) if self._watch else []),
            *([IndexMetrics({"picks": self.picks})] if isinstance(self.picks, ApproximateIndex) else []),
            *([self.learning.metrics] if self.learning else []),
            *([self._replicas] if self._replicas else []),
        ]
        return [OlderNames(source) for source in sources] if self._config.settings.older_metric_names else sources

    def warm(self) -> None:
        """Compile what the first request would wait for, and remember what an earlier process learned."""
        if self._watch is not None:
            self._watch.warm()
        self.picks.warm()
        for part in (ledger, snapshot, multiplicative, choice):
            part.warm()
        if self.learning is not None:
            self.learning.restore()

    def serve_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """The pool is these endpoints from now on."""
        change = self.router.update_pool(endpoints)
        self._follow_others(change.view)
        if self._watch is not None:
            self._watch.follow(change)
        if not self._config.settings.models:
            # Only prompts known by their token ids can be looked up among the engines' own blocks.
            for slot, _ in change.added:
                self.router.hits.publishes(slot, False)
        added, removed = len(change.added), len(change.removed)
        log.info("pool changed", pool=self.name, endpoints=len(endpoints), added=added, removed=removed)

    def follow(self, directory: Directory) -> None:
        """The pool is what its keeper says from now on."""
        self.adopt(replace(directory, endpoints=with_engine(directory.endpoints, self._config.engine)))

    def adopt(self, directory: Directory) -> None:
        """As `follow`, where every endpoint's engine is known for sure."""
        self.reader.follow(directory.objectives, directory.rewrites)
        if directory.endpoints != self.router.pool.view.endpoints:
            self.serve_endpoints(directory.endpoints)

    def background(self) -> list[Coroutine[object, object, None]]:
        """What runs beside the picks, until cancelled: upkeep, learning, replicas."""
        replicas = [self._replicas.run(self.router)] if self._replicas else []
        return [self._upkeep(), *([self.learning.run()] if self.learning else []), *replicas]

    async def close(self) -> None:
        """Stop listening to engines and keep what was learned; after the background."""
        async with contextlib.AsyncExitStack() as parts:
            if self._watch is not None:
                parts.push_async_callback(self._watch.close)
            if self.learning is not None:
                parts.push_async_callback(self.learning.close)

    def _among_others(self, options: ServeOptions, lane: Lane) -> "tuple[Replicas | None, SharedFlights | None]":
        """Our part among the replicas of this picker, and what we count together with them and the other workers."""
        url = self._config.settings.replicas_url
        if self.share is None and not url:
            return None, None
        own, others = (local_flights(), []) if self.share is None else (self.share.own, self.share.others)
        if not url:
            return None, SharedFlights(own, others)
        # Imported here: a client that few need.
        from picker.server.replicas import Replicas

        us = options.identity if self.share is None else f"{socket.gethostname()}{options.run_dir}"
        names = [f"{us}/{worker}" for worker in range(lane.workers)]
        stream = f"picker:{options.namespace}:{self.name}"
        replicas = Replicas(url, stream, names[lane.worker], names, own)
        return replicas, SharedFlights(own, [*others, *replicas.blocks])

    def _follow_others(self, view: PoolView) -> None:
        for follows in (self._flights, self._replicas, self.share):
            if follows is not None:
                follows.follow(view, self.router.pool.capacity)

    async def _upkeep(self) -> None:
        """What must happen now and then, off the pick's path: sweep lost flights, follow the engines' block sizes."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            swept = self.service.sweep()
            if swept:
                log.warning("answers whose end nobody told were given up; is the access log configured?", count=swept)
            self._say_who_fails()
            self._follow_cache_config()
            await self._plan()

    def _say_who_fails(self) -> None:
        """A line when picks begin to stay away from an endpoint, and one when it serves again."""
        faults, view = self.router.failing.left_out(), self.router.pool.view
        if not faults and not self._left_out:
            return
        members = zip(view.endpoints, view.slots.tolist(), strict=True)
        out = {endpoint.address: faults[slot].value for endpoint, slot in members if slot in faults}
        for address in out.keys() - self._left_out:
            log.warning("an endpoint fails, picks stay away", pool=self.name, endpoint=address, because=out[address])
        for address in (self._left_out - out.keys()) & view.by_address.keys():
            log.info("an endpoint serves again", pool=self.name, endpoint=address)
        self._left_out = frozenset(out)

    async def _plan(self) -> None:
        """A policy's plan takes tenths of a second in large pools: another thread makes it."""
        policy = self.router.policy
        if isinstance(policy, Plans) and (think := policy.due(time.monotonic())) is not None:
            before = policy.outlook
            policy.adopt(await asyncio.to_thread(think), time.monotonic())
            if policy.outlook != before:
                log.info("planned", pool=self.name, outlook=policy.outlook)

    def _follow_cache_config(self) -> None:
        tokens, rooms = cache_config(self.router.table, self.router.pool.view.slots, self.reader.block_tokens)
        self.reader.set_block_tokens(tokens)
        if isinstance(self.picks, ApproximateIndex):  # what all workers share is sized by the collector
            for slot, blocks in rooms:
                self.picks.set_capacity(slot, blocks)


def _state_file(folder: Path | None, pool: str, lane: Lane) -> Path | None:
    """Where this worker keeps what it learned of this pool; None for nowhere."""
    if folder is None:
        return None
    return (folder if lane.pools == 1 else folder / pool) / f"learned-{lane.worker}"


def _after_the_answer(work: Callable[[], None]) -> None:
    """In the loop's next turn: what was written in this one is on its way by then."""
    asyncio.get_running_loop().call_soon(work)


def _left_behind(error: Exception) -> None:
    log.error("a pick was answered, and what it leaves to later ones failed", exc_info=error)
