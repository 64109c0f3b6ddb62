"""When to scrape next: pure, per endpoint, with one budget for all.

Fast while an engine works or its load changes, slower by steps while it rests, slower still while it fails. All of them
together take no more than a share of a core, by what scrapes cost on this machine. Every wait is jittered, so that
endpoints started together do not stay in step, and ends on a beat, so that one waking of the process serves several.
"""

import math
from dataclasses import dataclass
from typing import Literal

FLOOR_S = 0.05
BEAT_S = 0.05
"""A scrape costs twice as much in a process that wakes for it alone and finds its caches cold."""
OVER = 32
UNUSED_S = 1.0
"""So long after the last pick nobody needs fresh readings."""

Outcome = Literal["busy", "quiet", "failed"]


@dataclass(frozen=True, slots=True)
class TickSettings:
    """Seconds between scrapes of one endpoint, and over all of them: scrapes per second, and a share of one core.

    Raises ValueError when the times are not `FLOOR_S <= fast_s <= idle_s <= failed_s` or the rest is out of range.
    """

    fast_s: float = 0.1
    idle_s: float = 1.5
    failed_s: float = 5.0
    growth: float = 1.5
    jitter: float = 0.1
    scrapes_per_s: float = 300.0
    cpu_share: float = 0.02

    def __post_init__(self) -> None:
        if not FLOOR_S <= self.fast_s <= self.idle_s <= self.failed_s < float("inf"):
            raise ValueError(f"scrape times must be {FLOOR_S} <= fast_s <= idle_s <= failed_s, and finite")
        if not 1.0 < self.growth <= 10.0 or not 0.0 <= self.jitter <= 0.5 or not 0.1 <= self.scrapes_per_s <= 1e5:
            raise ValueError("growth must be in (1, 10], jitter in [0, 0.5], scrapes_per_s in [0.1, 100000]")
        if not 0.0 < self.cpu_share <= 1.0:
            raise ValueError("cpu_share must be in (0, 1]")


@dataclass(frozen=True, slots=True)
class Tick:
    """Where one endpoint stands: its present interval in seconds, before jitter, and its failures in a row."""

    interval_s: float
    failures: int = 0


def first(settings: TickSettings) -> Tick:
    """A new endpoint is looked at fast."""
    return Tick(settings.fast_s)


def rate_per_s(cost_s: float, endpoints: int, settings: TickSettings) -> float:
    """Scrapes a second over all endpoints, where one costs `cost_s` seconds of CPU (0: not known yet).

    As many as the share of a core pays for, and never more than `scrapes_per_s`; but on a slow machine, too, half of
    them are enough to look at all endpoints at the interval of resting ones.

    >>> rate_per_s(cost_s=0.0001, endpoints=64, settings=TickSettings())
    200.0
    """
    paid = settings.cpu_share / cost_s if cost_s > 0 else settings.scrapes_per_s
    return min(settings.scrapes_per_s, max(paid, 2 * endpoints / settings.idle_s))


def after(tick: Tick, outcome: Outcome, settings: TickSettings, endpoints: int = 1, per_s: float | None = None) -> Tick:
    """The tick that follows a scrape in a pool of so many endpoints, where `per_s` is the rate over all of them.

    Growth is geometric: 0.1 s to 1.5 s idle in 7 steps, about 3 s. In a large pool the resting endpoints slow down
    further, so that all of them together take half of the budget and the working ones have the other half.

    >>> after(Tick(1.5), "busy", TickSettings())
    Tick(interval_s=0.1, failures=0)
    """
    if outcome == "busy":
        return Tick(settings.fast_s)
    share_s = endpoints / (0.5 * (per_s or settings.scrapes_per_s))
    if outcome == "quiet":
        start = tick.interval_s if tick.failures == 0 else settings.fast_s
        return Tick(min(start * settings.growth, max(settings.idle_s, share_s)))
    return Tick(min(tick.interval_s * 2.0, max(settings.failed_s, share_s)), tick.failures + 1)


def wait_s(tick: Tick, draw: float, settings: TickSettings) -> float:
    """Seconds to sleep; `draw` is uniform in [0, 1) and moves the interval by up to `jitter` to either side."""
    return max(FLOOR_S, tick.interval_s * (1.0 + settings.jitter * (2.0 * draw - 1.0)))


def on_beat(now: float, wait: float) -> float:
    """`wait`, but so that it ends on a beat: the nearest one that is still to come.

    >>> round(on_beat(10.01, 0.2), 6)
    0.19
    """
    return max(math.floor(now / BEAT_S) + 1, round((now + wait) / BEAT_S)) * BEAT_S - now


class Pace:
    """Spaces scrape starts so that all endpoints together keep to a rate: first come, first served.

    An endpoint holds one place at a time, so past the budget every endpoint slows down by the same factor and
    the wait is never longer than endpoints / rate.
    """

    def __init__(self) -> None:
        self._next = float("-inf")

    def delay(self, now: float, per_s: float) -> float:
        """Take the next place at this rate; returns the seconds until it, 0 within the budget."""
        place = max(now, self._next)
        self._next = place + 1.0 / per_s
        return place - now


class Cost:
    """CPU seconds of one scrape: the median of the last whole `OVER`, 0 before."""

    def __init__(self) -> None:
        self.each_s = 0.0
        self._last: list[float] = []

    def add(self, seconds: float) -> None:
        """One scrape took this much."""
        self._last.append(seconds)
        if len(self._last) == OVER:
            self.each_s = sorted(self._last)[OVER // 2]
            self._last.clear()


class Use:
    """Whether anybody needs fresh readings of a pool: somebody picks, or something of ours is in flight."""

    def __init__(self) -> None:
        self._picks = 0.0
        self._at = float("-inf")

    def seen(self, picks: float, in_flight: float, now: float) -> None:
        """So many picks ever, and so many requests in flight, over the pool."""
        if picks != self._picks or in_flight > 0:
            self._at = now
        self._picks = picks

    def lately(self, now: float) -> bool:
        """Whether it was so a second ago or later."""
        return now - self._at <= UNUSED_S
