"""What the router learns of simulated engines, scrape by scrape and KV event by KV event, as late as `Signals` say."""

import random
from collections.abc import Sequence

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.engines.index import PrefixIndex
from picker.engines.metrics import EngineSample
from picker.engines.tick import Tick, TickSettings, after, first, wait_s
from picker.routing.router import Router
from picker.simulator.clock import Clock
from picker.simulator.signals import Signals, publish
from picker.simulator.station import IDLE, Station


class Watching:
    """Scrapes by the service's own rule. Engines at rest are not scraped in fact: their pages would tell nothing new,
    and `look_at_resting` makes up for it."""

    def __init__(self, clock: Clock, router: Router, index: PrefixIndex, signals: Signals, draw: random.Random) -> None:
        self._clock, self._router, self._index = clock, router, index
        self._signals, self._draw = signals, draw
        self._tick = TickSettings(fast_s=signals.scrape_s)
        self._resting: dict[Station, tuple[int, float]] = {}
        """Slot, and when the last scrape was made in fact."""

    def joined(self, station: Station, slot: int) -> None:
        phase = self._draw.random() * self._tick.fast_s * 1e3
        self._clock.at(self._clock.now + phase, self._scrape, (station, slot, first(self._tick)))

    def left(self, station: Station) -> None:
        self._resting.pop(station, None)

    def read_news(self, stations: Sequence[Station]) -> None:
        """Bring the index up to now, less the lag of events. Only picks read it, so nobody sees it between them."""
        seen_to = self._clock.now - self._signals.event_lag_ms
        by_address, slots = self._router.pool.view.by_address, self._router.pool.view.slots
        for station in stations:
            station.settle(seen_to)
            news = station.news
            if not news or news[0][0] > seen_to:
                continue
            events = []
            while news and news[0][0] <= seen_to:
                events.append(news.popleft()[1])
            position = by_address.get(station.address)
            if position is not None:
                publish(events, self._index, int(slots[position]))

    def look_at_resting(self) -> None:
        """Make the table as fresh as it would be, had the resting engines been scraped all along."""
        for slot, since in self._resting.values():
            self._router.table.columns[scraped.SCRAPED_AT, slot] = self._grid(since) / 1e3

    def wake(self, station: Station) -> None:
        """The engine is not as it was any more: the next scrape is real again."""
        resting = self._resting.pop(station, None)
        if resting is not None:
            slot, since = resting
            following = self._grid(since) + self._tick.idle_s * 1e3
            self._clock.at(following, self._scrape, (station, slot, Tick(self._tick.idle_s)))

    def _scrape(self, watch: tuple[Station, int, Tick]) -> None:
        station, slot, tick = watch
        if self._slot(station) != slot:
            return
        now = self._clock.now
        if not station.alive:
            self._rest(station, slot, after(tick, "failed", self._tick, self._members))
            return
        sample = station.sample(now)
        columns = self._router.ledger.columns
        picks, in_flight = float(columns[own.PICKS, slot]), float(columns[own.IN_FLIGHT, slot])
        page = (station, slot, tick, sample, now / 1e3, picks, in_flight)
        self._clock.at(now + self._signals.scrape_ms, self._scraped, page)

    def _scraped(self, page: tuple[Station, int, Tick, EngineSample, float, float, float]) -> None:
        """As the service's scraper does with a page that has arrived."""
        station, slot, tick, sample, started_s, picks, in_flight = page
        if self._slot(station) != slot:
            return
        ledger, now = self._router.ledger, self._clock.now
        picked = float(ledger.columns[own.PICKS, slot]) - picks
        changed = self._router.table.observe(slot, sample, now / 1e3, in_flight + picked)
        running, waiting = sample.running or 0.0, sample.waiting or 0.0
        ledger.observe(slot, running, waiting, started_s)
        busy = changed or running + waiting > 0 or ledger.columns[own.IN_FLIGHT, slot] > 0
        following = after(tick, "busy" if busy else "quiet", self._tick, self._members)
        if following == tick and not busy and station.ends_ms == IDLE:
            self._resting[station] = (slot, now)
        else:
            self._rest(station, slot, following)

    def _rest(self, station: Station, slot: int, tick: Tick) -> None:
        wait = wait_s(tick, self._draw.random(), self._tick) * 1e3
        self._clock.at(self._clock.now + wait, self._scrape, (station, slot, tick))

    def _grid(self, since: float) -> float:
        """The last scrape before now of an engine that rests since then."""
        idle_ms = self._tick.idle_s * 1e3
        return since + (self._clock.now - since) // idle_ms * idle_ms

    @property
    def _members(self) -> int:
        return len(self._router.pool.view.endpoints)

    def _slot(self, station: Station) -> int | None:
        view = self._router.pool.view
        position = view.by_address.get(station.address)
        return None if position is None else int(view.slots[position])
