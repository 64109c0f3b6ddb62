"""A pool of simulated engines behind the router of the service, on one virtual clock.

The router, its policy, ledger and indexes are the very objects that serve; only what lies outside of them is simulated:
arrivals, engines, scrapes, KV events, and the way of an answer back. So a policy sees what it would see in life: own
picks at once, everything else late (`Signals`).

    arrival -> pick -> (decision) -> engine ... first token -> (response) -> first_byte
                                        ... last token  -> (response) -> ended

Everything happens on one `Clock`. Times are in ms, and in seconds where the router is told.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from picker.engines import table as scraped
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.policies.policy import Policy
from picker.pool.view import Endpoint
from picker.requests.request import Api, Request
from picker.routing.decisions import Decision, DecisionLog
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import NoEndpoint, Router, Watcher
from picker.simulator.clock import Clock
from picker.simulator.ended import Ended, Result, Series, look_at
from picker.simulator.engine import Engine
from picker.simulator.events import Crash, Join, Leave, PoolEvent, Slow
from picker.simulator.foresight import Moment, OnTheWay, Seer
from picker.simulator.migration import Migration, Moving
from picker.simulator.moves import Moves
from picker.simulator.pool_spec import slowed
from picker.simulator.sequence import EngineRequest, Limits, Refused
from picker.simulator.sequence import Sequence as EngineSequence
from picker.simulator.signals import Signals
from picker.simulator.station import Station
from picker.simulator.steptime import StepTime
from picker.simulator.streams import Streams
from picker.simulator.training import Training
from picker.simulator.watching import Watching
from picker.simulator.workload import Job, Workload, chain

UPKEEP_MS = 1000.0
RECENT_TTL_S = 2.0


@dataclass(slots=True, eq=False)
class _Flight:
    """One request between its arrival and its end."""

    job: Job
    arrived_ms: float
    decision: Decision | None = None
    address: str = ""
    first_ms: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0


class Cluster:
    """One pool, one policy, one run."""

    def __init__(
        self,
        rows: Sequence[StepTime],
        policy: Callable[[np.random.Generator], Policy],
        *,
        seed: int = 0,
        signals: Signals | None = None,
        limits: Limits | None = None,
        events: Sequence[PoolEvent] = (),
        joining: Callable[[str], StepTime] | None = None,
        seers: Sequence[Seer] = (),
        watchers: Iterable[Watcher] = (),
        migration: Migration | None = None,
    ) -> None:
        """`policy` makes one from the randomness it may use; `joining` gives the row of an engine type that joins.
        `seers` are shown the truth before each pick, `watchers` are the router's. Running requests move as `migration`
        lets them if the policy plans for that; without it, none does.

        Raises ValueError for settings that cannot be.
        """
        self.signals = signals = signals or Signals()
        self.stations: list[Station] = []
        self.index, self.picks = PrefixIndex(), ApproximateIndex()
        rng = np.random.default_rng(seed)
        hits = PrefixHits(self.index, self.picks, ApproximateIndex(ttl_s=RECENT_TTL_S))
        made = policy(rng)
        self._training = Training(made)
        self.router = Router(made, hits, rng, log=DecisionLog(capacity=1), watchers=[*watchers, self._training])
        self._limits = limits or Limits()
        self._joining = joining
        self._seers = seers
        self._coming: deque[OnTheWay] = deque()
        self._exact = signals.matching == "exact"
        self._clock = Clock()
        self._watching = Watching(self._clock, self.router, self.index, signals, random.Random(seed))
        self._by_address: dict[str, Station] = {}
        self._members: dict[str, Endpoint] = {}
        self._streams = Streams(self._clock, self._watching.wake)
        self._moves: Moves | None = None
        if migration is not None and isinstance(made, Moving) and made.moves:
            self._moves = Moves(self._clock, self._streams, migration, made)
        self._left = 0
        self._ended: list[Ended] = []
        self._series = Series()
        for row in rows:
            self._add(row)
        self._change_pool({station.address: True for station in self.stations})
        for event in events:
            self._clock.at(event.at_s * 1e3, self._happen, event)
        self._clock.at(0.0, self._upkeep, None)

    def run(self, workload: Workload, *, on_end: Callable[[Ended], None] = lambda _: None) -> Result:
        """Play the workload to its end; `on_end` sees each request as it ends. Once per cluster."""
        self._left = workload.jobs
        self._on_end = on_end
        arrivals, upcoming = workload.arrivals, 0
        clock = self._clock
        while self._left:
            if upcoming < len(arrivals) and clock.next_is_after(arrivals[upcoming][0]):
                clock.now, job = arrivals[upcoming]
                upcoming += 1
                self._arrive(job)
            else:
                clock.turn()
        # What was still to come refers to the cluster, and its indexes reserve gigabytes of address space: with enough
        # of them waiting for the collector, the process can start no other.
        clock.clear()
        moved = None if self._moves is None else self._moves.tally
        return Result(self._ended, self._series, clock.now, self.stations, self._training.handovers, moved)

    # -- one request ----------------------------------------------------------------------------------------------

    def _arrive(self, job: Job) -> None:
        flight = _Flight(job, self._clock.now)
        blocks = chain(job, self._limits.block_size)
        request = Request(
            api=Api.COMPLETIONS,
            model="m",
            stream=True,
            prompt_tokens=float(job.prompt_tokens),
            tokens_source="ids" if self._exact else "ratio",
            chain=blocks,
            block_tokens=float(self._limits.block_size),
            exact=self._exact,
        )
        self._watching.look_at_resting()
        if self._exact:
            self._watching.read_news(self.stations)
        asked = EngineRequest(str(job.index), job.prompt_tokens, job.output_tokens, blocks)
        if self._seers:
            rows = tuple(self._by_address[endpoint.address] for endpoint in self.router.pool.view.endpoints)
            moment = Moment(self._clock.now, asked, rows, self._by_address, tuple(self._coming), self.signals)
            for seer in self._seers:
                seer.see(moment)
        try:
            flight.decision = self.router.pick(request, None, self._clock.now / 1e3)
        except NoEndpoint:
            self._finish(flight, 503)
            return
        due = self._clock.now + self.signals.decision_ms
        self._coming.append(OnTheWay(due, flight.decision.addresses, asked))
        self._clock.at(due, self._deliver, flight)

    def _deliver(self, flight: _Flight) -> None:
        """The proxy connects: to the pick, or to the first fallback that is up."""
        _, addresses, asked = self._coming.popleft()
        for address in addresses:
            station = self._by_address[address]
            if not station.alive:
                continue
            flight.address = address
            try:
                self._streams.submit(station, asked, partial(self._heard, flight))
            except Refused as refused:
                self._answer(flight, 503 if refused.reason == "queue-full" else 400)
            return
        self._answer(flight, 503)

    def _heard(self, flight: _Flight, sequence: EngineSequence | None) -> None:
        """A token came; the request left an engine, finished or not; or the engine died."""
        if sequence is None:
            self._answer(flight, 0)
            return
        if flight.first_ms is None:
            flight.first_ms = self._clock.now + self.signals.response_ms
            flight.cached_tokens = sequence.cached_tokens or 0
            self._clock.at(flight.first_ms, self._first_byte, flight)
        if not sequence.live:
            flight.preemptions += sequence.preemptions
        if sequence.finished:
            if self._moves is not None:
                self._moves.over(sequence.request.id)
            self._answer(flight, 200)

    def _first_byte(self, flight: _Flight) -> None:
        assert flight.decision is not None
        self.router.served(flight.decision.flight, flight.address)
        self.router.first_byte(flight.decision.flight, self._clock.now / 1e3)

    def _answer(self, flight: _Flight, status: int) -> None:
        """The answer, or what stands for it, goes back."""
        self._clock.at(self._clock.now + self.signals.response_ms, self._over, (flight, status))

    def _over(self, ended: tuple[_Flight, int]) -> None:
        self._finish(*ended)

    def _finish(self, flight: _Flight, status: int) -> None:
        job, complete = flight.job, status == 200
        ttft = None if flight.first_ms is None else flight.first_ms - flight.arrived_ms
        took = self._clock.now - flight.arrived_ms
        if flight.decision is not None:
            outcome = Outcome(status, flight.address or None, True, None, took / 1e3, complete=complete)
            outcome.ttft_s = None if ttft is None else ttft / 1e3
            if complete:
                outcome.prompt_tokens = job.prompt_tokens
                outcome.cached_tokens = flight.cached_tokens
                outcome.completion_tokens = job.output_tokens
            self.router.ended(flight.decision.flight, outcome)
        self._left -= 1
        ended = Ended(
            job.index,
            flight.arrived_ms,
            ttft,
            took,
            job.prompt_tokens,
            job.output_tokens if complete else 0,
            flight.cached_tokens if complete else 0,
            flight.preemptions if complete else 0,
            status,
            flight.address,
        )
        self._ended.append(ended)
        self._on_end(ended)
        if job.then is not None:
            self._clock.at(self._clock.now + job.think_ms, self._arrive, job.then)

    # -- the pool -----------------------------------------------------------------------------------------------------

    def _upkeep(self, _: None) -> None:
        """What the service does now and then; and a look at the load for the record."""
        self.router.sweep(self._clock.now / 1e3)
        self._training.turn(self._clock.now / 1e3)
        if self._moves is not None:
            self._moves.follow()
        if not self._exact:
            columns = self.router.table.columns
            for slot in self.router.pool.view.slots.tolist():
                blocks = columns[scraped.NUM_BLOCKS, slot] * columns[scraped.BLOCK_SIZE, slot]
                if blocks > 0:
                    self.picks.set_capacity(slot, int(blocks / self._limits.block_size))
        self._series.look(self._clock.now, lambda: look_at(self.stations, self._training))
        self._clock.at(self._clock.now + UPKEEP_MS, self._upkeep, None)

    def _add(self, row: StepTime) -> Station:
        number = len(self.stations)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
        # Engines that exchange sequences number them apart.
        station = Station(address, Engine(row, self._limits, events=self._exact, first=number << 24))
        self.stations.append(station)
        self._by_address[address] = station
        return station

    def _happen(self, event: PoolEvent) -> None:
        match event:
            case Join():
                if self._joining is None:
                    raise ValueError("no engine types are known that could join")
                station = self._add(self._joining(event.type))
                self._clock.at(self._clock.now + self.signals.detection_ms, self._change_pool, {station.address: True})
            case Leave():
                address = self.stations[event.engine].address
                self._clock.at(self._clock.now + self.signals.detection_ms, self._change_pool, {address: False})
            case Crash():
                station = self.stations[event.engine]
                self._watching.wake(station)
                self._streams.crash(station)
                self._clock.at(self._clock.now + self.signals.detection_ms, self._change_pool, {station.address: False})
            case Slow():
                station = self.stations[event.engine]
                before = station.ends_ms
                station.cut(self._clock.now)
                station.engine.step_time = slowed(station.row, event.factor)
                self._streams.changed(station, before)

    def _change_pool(self, changes: dict[str, bool]) -> None:
        """The router learns who is there now."""
        for address, present in changes.items():
            if present:
                kv = f"tcp://{address}" if self._exact else None
                labels = {"picker.dev/hardware": self._by_address[address].row.name}
                self._members[address] = Endpoint(
                    address, address, labels=labels, metrics_address=address, kv_events=kv
                )
            else:
                self._members.pop(address, None)
        change = self.router.update_pool(self._members.values())
        for _, endpoint in change.removed:
            self._watching.left(self._by_address[endpoint.address])
        for slot, endpoint in change.added:
            self._watching.joined(self._by_address[endpoint.address], slot)
        if self._moves is not None:
            view = self.router.pool.view
            self._moves.pool({int(view.slots[at]): self._by_address[a] for a, at in view.by_address.items()})
