"""Replicas of a picker, told and heard through a Valkey or Redis stream; without the server each goes on alone."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import redis.asyncio
import structlog
from prometheus_client.core import Metric
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from picker.engines.ledger import IN_FLIGHT
from picker.pool.view import PoolView, Slots
from picker.requests.request import Request
from picker.routing.decisions import Decision
from picker.routing.router import Router
from picker.shared.flights import local_flights, mirror_of
from picker.shared.mirror import key_of
from picker.shared.replicas import BadMessage, Finished, Listener, Teller
from picker.shared.rows import Block
from picker.telemetry.metrics import gauge
from picker.telemetry.tally import Count

log = structlog.get_logger(__name__)

MOST_OTHERS = 16
"""Processes of other replicas whose flights are counted."""
TELL_S = 0.02
WHOLE_S = 1.0
"""Between two messages with all that we have in flight, which also say that we live."""
SILENT_S = 3.0
AGAIN_S = 1.0
PATIENCE_S = 2.0
MOST_MESSAGES = 10_000
"""Kept in the stream, about."""


class Replicas:
    """One process's part among the replicas of its pool. Watches the router; a pick waits for nothing here."""

    def __init__(self, url: str, stream: str, sender: str, siblings: Sequence[str], own: Block) -> None:
        """`siblings`: all workers of this picker. Raises ValueError for a URL that is none."""
        self.blocks = [local_flights() for _ in range(MOST_OTHERS)]
        """What the others have in flight."""
        self.alone = True
        self._bad = Count("picker_replica_bad_messages", "Messages in the replicas' stream that cannot be read.")
        self._url, self._stream = url, stream
        self._client()  # a URL that is wrong is said at start
        self._teller, self._listener = Teller(sender, own), Listener(sender, siblings, self.blocks)
        self.slots: dict[int, int] = {}
        """Of the endpoints here, by their keys."""
        self.learn: Callable[[Finished], None] | None = None
        """Who learns of what came of the others' picks."""
        self._flights = mirror_of(self.blocks)

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        self._teller.follow(view, capacity)
        self._flights.follow(view, capacity)
        self.slots = {int(key_of(e)): slot for e, slot in zip(view.endpoints, view.slots.tolist(), strict=True)}

    def picked(self, decision: Decision) -> None:
        """The others will hear where this prompt went."""
        request = decision.request
        self._teller.placed(int(decision.rows.slots[decision.chosen]), request.exact, request.chain)

    def ended(self, decision: Decision) -> None:
        """The ledger's rows tell."""

    def finished(self, layout: int, slots: Slots, rows: bytes) -> None:
        """The others will hear what came of picks for these slots."""
        self._teller.finished(layout, slots, rows)

    def collect(self) -> Iterator[Metric]:
        """Its metrics."""
        yield gauge("picker_replicas_heard", "Processes of other replicas that are heard.", len(self._listener))
        self._flights.refresh()
        in_flight = float(self._flights.columns[IN_FLIGHT].sum())
        yield gauge("picker_replicas_in_flight", "Requests that they have in flight, as picks see them.", in_flight)
        yield gauge("picker_replicas_alone", "1 while the server between replicas is out of reach.", float(self.alone))
        yield from self._bad.collect()

    async def run(self, router: Router) -> None:
        """Tell and hear until cancelled."""
        while True:
            client = self._client()
            tasks = [asyncio.create_task(self._tell(client)), asyncio.create_task(self._hear(client, router))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                reason = str(next(iter(done)).exception())[:200]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await client.aclose()
            if not self.alone:
                log.warning("replicas are out of reach, going on alone", reason=reason)
            self.alone = True
            self._listener.forget_silent(float("inf"))
            await asyncio.sleep(AGAIN_S)

    async def _tell(self, client: Any) -> None:
        whole_at = float("-inf")
        while _wanted():
            now = time.monotonic()
            whole = now - whole_at >= WHOLE_S
            if whole:
                whole_at = now
            if (text := self._teller.message(now, whole=whole)) is not None:
                await client.xadd(self._stream, {"m": text}, maxlen=MOST_MESSAGES, approximate=True)
            for sender in self._listener.forget_silent(now - SILENT_S):
                log.warning("a replica fell silent", sender=sender)
            await asyncio.sleep(TELL_S)

    async def _hear(self, client: Any, router: Router) -> None:
        newest = await client.xrevrange(self._stream, count=1)
        last = newest[0][0] if newest else b"0"
        self.alone = False
        log.info("together with other replicas", stream=self._stream)
        while _wanted():
            for _, messages in await client.xread({self._stream: last}, count=100, block=500):
                last = messages[-1][0]
                for _, fields in messages:
                    self._take(fields.get(b"m", b""), router)
            await asyncio.sleep(0)

    def _take(self, text: bytes, router: Router) -> None:
        now = time.monotonic()
        try:
            news = self._listener.hear(text, now)
        except BadMessage:
            self._bad.add()
            return
        for placement in news.placements:
            if (slot := self.slots.get(placement.key)) is not None:
                router.hits.placed(Request(exact=placement.exact, chain=placement.blocks), slot, now)
        if self.learn is not None:
            for finished in news.finished:
                self.learn(finished)

    def _client(self) -> Any:
        return redis.asyncio.Redis.from_url(
            self._url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0)
        )


def _wanted() -> bool:
    """Whether the task that asks is to go on. Its client may swallow the exception that says otherwise."""
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
