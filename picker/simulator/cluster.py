"""A pool of simulated engines behind the router of the service, on one virtual clock.

The router, its policy, ledger and indexes are the very objects that serve; only what lies outside of them is simulated:
arrivals, engines, scrapes, KV events, and the way of an answer back. So a policy sees what it would see in life: own
picks at once, everything else late (`Signals`).

    arrival -> pick -> (decision) -> engine ... first token -> (response) -> first_byte
                                        ... last token  -> (response) -> ended

Everything is an entry (time, number, action, argument) of one heap; entries of equal time run in the order in which
they were made. Times are in ms, and in seconds where the router is told.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.metrics import EngineSample
from picker.engines.tick import Tick, TickSettings, after, first, wait_s
from picker.policies.policy import Policy
from picker.pool.view import Endpoint
from picker.requests.request import Api, Request
from picker.routing.decisions import Decision, DecisionLog
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import NoEndpoint, Router, Watcher
from picker.simulator.ended import Ended, Result, Series, look_at
from picker.simulator.engine import Engine
from picker.simulator.events import Crash, Join, Leave, PoolEvent, Slow
from picker.simulator.foresight import Moment, OnTheWay, Seer
from picker.simulator.pool_spec import slowed
from picker.simulator.sequence import EngineRequest, Limits, Refused
from picker.simulator.signals import Signals, publish
from picker.simulator.station import IDLE, Station
from picker.simulator.steptime import StepTime
from picker.simulator.training import Training
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
    ) -> None:
        """`policy` makes one from the randomness it may use; `joining` gives the row of an engine type that joins.
        `seers` are shown the truth before each pick, `watchers` are the router's.

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
        self._tick = TickSettings(fast_s=signals.scrape_s)
        self._draw = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._made = 0
        self._now = 0.0
        self._by_address: dict[str, Station] = {}
        self._members: dict[str, Endpoint] = {}
        self._inside: dict[str, dict[str, _Flight]] = {}
        self._resting: dict[Station, tuple[int, float]] = {}
        """Idle engines whose scrapes would tell nothing new: slot, and when the last one was made in fact."""
        self._left = 0
        self._ended: list[Ended] = []
        self._series = Series()
        for row in rows:
            self._add(row)
        self._change_pool({station.address: True for station in self.stations})
        for event in events:
            self._at(event.at_s * 1e3, self._happen, event)
        self._at(0.0, self._upkeep, None)

    def run(self, workload: Workload, *, on_end: Callable[[Ended], None] = lambda _: None) -> Result:
        """Play the workload to its end; `on_end` sees each request as it ends. Once per cluster."""
        self._left = workload.jobs
        self._on_end = on_end
        arrivals, upcoming = workload.arrivals, 0
        heap, pop = self._heap, heapq.heappop
        while self._left:
            if upcoming < len(arrivals) and (not heap or arrivals[upcoming][0] <= heap[0][0]):
                self._now, job = arrivals[upcoming]
                upcoming += 1
                self._arrive(job)
            else:
                self._now, _, action, argument = pop(heap)
                action(argument)
        # What was still to come refers to the cluster, and its indexes reserve gigabytes of address space: with enough
        # of them waiting for the collector, the process can start no other.
        heap.clear()
        return Result(self._ended, self._series, self._now, self.stations, self._training.handovers)

    def _at(self, at: float, action: Callable[[Any], None], argument: Any) -> None:
        self._made += 1
        heapq.heappush(self._heap, (at, self._made, action, argument))

    # -- one request ----------------------------------------------------------------------------------------------

    def _arrive(self, job: Job) -> None:
        flight = _Flight(job, self._now)
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
        self._look_at_resting()
        if self._exact:
            self._read_news()
        asked = EngineRequest(str(job.index), job.prompt_tokens, job.output_tokens, blocks)
        if self._seers:
            rows = tuple(self._by_address[endpoint.address] for endpoint in self.router.pool.view.endpoints)
            moment = Moment(self._now, asked, rows, self._by_address, tuple(self._coming), self.signals)
            for seer in self._seers:
                seer.see(moment)
        try:
            flight.decision = self.router.pick(request, None, self._now / 1e3)
        except NoEndpoint:
            self._finish(flight, 503)
            return
        due = self._now + self.signals.decision_ms
        self._coming.append(OnTheWay(due, flight.decision.addresses, asked))
        self._at(due, self._deliver, flight)

    def _deliver(self, flight: _Flight) -> None:
        """The proxy connects: to the pick, or to the first fallback that is up."""
        _, addresses, asked = self._coming.popleft()
        for address in addresses:
            station = self._by_address[address]
            if not station.alive:
                continue
            flight.address = address
            try:
                before = station.ends_ms
                station.submit(asked, self._now)
            except Refused as refused:
                self._answer(flight, 503 if refused.reason == "queue-full" else 400)
                return
            self._inside[address][asked.id] = flight
            self._wake(station)
            if station.ends_ms != before:
                self._at(station.ends_ms, self._step, station)
            return
        self._answer(flight, 503)

    def _step(self, station: Station) -> None:
        if station.ends_ms != self._now:
            return  # a run that was cut short meanwhile
        inside = self._inside[station.address]
        back = self._now + self.signals.response_ms
        for sequence in station.end():
            flight = inside[sequence.request.id]
            if flight.first_ms is None:
                flight.first_ms = back
                self._at(back, self._first_byte, flight)
            if sequence.finished:
                del inside[sequence.request.id]
                flight.cached_tokens = sequence.cached_tokens or 0
                flight.preemptions = sequence.preemptions
                self._answer(flight, 200)
        if station.ends_ms != IDLE:
            self._at(station.ends_ms, self._step, station)

    def _first_byte(self, flight: _Flight) -> None:
        assert flight.decision is not None
        self.router.served(flight.decision.flight, flight.address)
        self.router.first_byte(flight.decision.flight, self._now / 1e3)

    def _answer(self, flight: _Flight, status: int) -> None:
        """The answer, or what stands for it, goes back."""
        self._at(self._now + self.signals.response_ms, self._over, (flight, status))

    def _over(self, ended: tuple[_Flight, int]) -> None:
        self._finish(*ended)

    def _finish(self, flight: _Flight, status: int) -> None:
        job, complete = flight.job, status == 200
        ttft = None if flight.first_ms is None else flight.first_ms - flight.arrived_ms
        took = self._now - flight.arrived_ms
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
            flight.cached_tokens,
            flight.preemptions,
            status,
            flight.address,
        )
        self._ended.append(ended)
        self._on_end(ended)
        if job.then is not None:
            self._at(self._now + job.think_ms, self._arrive, job.then)

    # -- what the router learns of the engines --------------------------------------------------------------------

    def _read_news(self) -> None:
        """Bring the index up to now, less the lag of events. Only picks read it, so nobody sees it between them."""
        seen_to = self._now - self.signals.event_lag_ms
        by_address, slots = self.router.pool.view.by_address, self.router.pool.view.slots
        for station in self.stations:
            station.settle(seen_to)
            news = station.news
            if not news or news[0][0] > seen_to:
                continue
            events = []
            while news and news[0][0] <= seen_to:
                events.append(news.popleft()[1])
            position = by_address.get(station.address)
            if position is not None:
                publish(events, self.index, int(slots[position]))

    def _scrape(self, watch: tuple[Station, int, Tick]) -> None:
        station, slot, tick = watch
        if self._slot(station) != slot:
            return
        if not station.alive:
            self._rest(station, slot, after(tick, "failed", self._tick, len(self._members)))
            return
        sample = station.sample(self._now)
        columns = self.router.ledger.columns
        picks, in_flight = float(columns[own.PICKS, slot]), float(columns[own.IN_FLIGHT, slot])
        page = (station, slot, tick, sample, self._now / 1e3, picks, in_flight)
        self._at(self._now + self.signals.scrape_ms, self._scraped, page)

    def _scraped(self, page: tuple[Station, int, Tick, EngineSample, float, float, float]) -> None:
        """As the service's scraper does with a page that has arrived."""
        station, slot, tick, sample, started_s, picks, in_flight = page
        if self._slot(station) != slot:
            return
        ledger = self.router.ledger
        picked = float(ledger.columns[own.PICKS, slot]) - picks
        changed = self.router.table.observe(slot, sample, self._now / 1e3, in_flight + picked)
        running, waiting = sample.running or 0.0, sample.waiting or 0.0
        ledger.observe(slot, running, waiting, started_s)
        busy = changed or running + waiting > 0 or ledger.columns[own.IN_FLIGHT, slot] > 0
        following = after(tick, "busy" if busy else "quiet", self._tick, len(self._members))
        if following == tick and not busy and station.ends_ms == IDLE:
            self._resting[station] = (slot, self._now)
        else:
            self._rest(station, slot, following)

    def _rest(self, station: Station, slot: int, tick: Tick) -> None:
        wait = wait_s(tick, self._draw.random(), self._tick) * 1e3
        self._at(self._now + wait, self._scrape, (station, slot, tick))

    def _look_at_resting(self) -> None:
        """Make the table as fresh as it would be, had the resting engines been scraped all along."""
        for slot, since in self._resting.values():
            self.router.table.columns[scraped.SCRAPED_AT, slot] = self._grid(since) / 1e3

    def _wake(self, station: Station) -> None:
        """The engine is not as it was any more: the next scrape is real again."""
        resting = self._resting.pop(station, None)
        if resting is not None:
            slot, since = resting
            following = self._grid(since) + self._tick.idle_s * 1e3
            self._at(following, self._scrape, (station, slot, Tick(self._tick.idle_s)))

    def _grid(self, since: float) -> float:
        """The last scrape before now of an engine that rests since then."""
        idle_ms = self._tick.idle_s * 1e3
        return since + (self._now - since) // idle_ms * idle_ms

    def _slot(self, station: Station) -> int | None:
        view = self.router.pool.view
        position = view.by_address.get(station.address)
        return None if position is None else int(view.slots[position])

    def _upkeep(self, _: None) -> None:
        """What the service does now and then; and a look at the load for the record."""
        self.router.sweep(self._now / 1e3)
        self._training.turn(self._now / 1e3)
        if not self._exact:
            columns = self.router.table.columns
            for slot in self.router.pool.view.slots.tolist():
                blocks = columns[scraped.NUM_BLOCKS, slot] * columns[scraped.BLOCK_SIZE, slot]
                if blocks > 0:
                    self.picks.set_capacity(slot, int(blocks / self._limits.block_size))
        self._series.look(self._now, lambda: look_at(self.stations, self._training))
        self._at(self._now + UPKEEP_MS, self._upkeep, None)

    # -- the pool -------------------------------------------------------------------------------------------------

    def _add(self, row: StepTime) -> Station:
        number = len(self.stations)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
        station = Station(address, Engine(row, self._limits, events=self._exact))
        self.stations.append(station)
        self._by_address[address] = station
        self._inside[address] = {}
        return station

    def _happen(self, event: PoolEvent) -> None:
        match event:
            case Join():
                if self._joining is None:
                    raise ValueError("no engine types are known that could join")
                station = self._add(self._joining(event.type))
                self._at(self._now + self.signals.detection_ms, self._change_pool, {station.address: True})
            case Leave():
                address = self.stations[event.engine].address
                self._at(self._now + self.signals.detection_ms, self._change_pool, {address: False})
            case Crash():
                station = self.stations[event.engine]
                self._wake(station)
                station.crash()
                inside = self._inside[station.address]
                for flight in inside.values():
                    self._answer(flight, 0)
                inside.clear()
                self._at(self._now + self.signals.detection_ms, self._change_pool, {station.address: False})
            case Slow():
                station = self.stations[event.engine]
                before = station.ends_ms
                station.cut(self._now)
                station.engine.step_time = slowed(station.row, event.factor)
                if station.ends_ms not in (before, IDLE):
                    self._at(station.ends_ms, self._step, station)

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
            self._resting.pop(self._by_address[endpoint.address], None)
        for slot, endpoint in change.added:
            station = self._by_address[endpoint.address]
            phase = self._draw.random() * self._tick.fast_s * 1e3
            self._at(self._now + phase, self._scrape, (station, slot, first(self._tick)))
