"""When to scrape next: pure, per endpoint, with one budget for all.

Fast while an engine works or its load changes, slower by steps while it rests, slower still while it fails.
Every wait is jittered, so that endpoints started together do not stay in step.
"""

from dataclasses import dataclass
from typing import Literal

FLOOR_S = 0.05

Outcome = Literal["busy", "quiet", "failed"]


@dataclass(frozen=True, slots=True)
class TickSettings:
    """Seconds between scrapes of one endpoint, and scrapes per second over all of them.

    One scrape costs 0.3 to 0.8 ms of CPU, nearly all of it HTTP, so the default budget is 10 to 25 % of a core.
    Raises ValueError when the times are not `FLOOR_S <= fast_s <= idle_s <= failed_s` or the rest is out of range.
    """

    fast_s: float = 0.1
    idle_s: float = 1.5
    failed_s: float = 5.0
    growth: float = 1.5
    jitter: float = 0.1
    scrapes_per_s: float = 300.0

    def __post_init__(self) -> None:
        if not FLOOR_S <= self.fast_s <= self.idle_s <= self.failed_s < float("inf"):
            raise ValueError(f"scrape times must be {FLOOR_S} <= fast_s <= idle_s <= failed_s, and finite")
        if not 1.0 < self.growth <= 10.0 or not 0.0 <= self.jitter <= 0.5 or not 0.1 <= self.scrapes_per_s <= 1e5:
            raise ValueError("growth must be in (1, 10], jitter in [0, 0.5], scrapes_per_s in [0.1, 100000]")


@dataclass(frozen=True, slots=True)
class Tick:
    """Where one endpoint stands: its present interval in seconds, before jitter, and its failures in a row."""

    interval_s: float
    failures: int = 0


def first(settings: TickSettings) -> Tick:
    """A new endpoint is looked at fast."""
    return Tick(settings.fast_s)


def after(tick: Tick, outcome: Outcome, settings: TickSettings, endpoints: int = 1) -> Tick:
    """The tick that follows a scrape in a pool of so many endpoints.

    Growth is geometric: 0.1 s to 1.5 s idle in 7 steps, about 3 s. In a large pool the resting endpoints slow down
    further, so that all of them together take half of the budget and the working ones have the other half.

    >>> after(Tick(1.5), "busy", TickSettings())
    Tick(interval_s=0.1, failures=0)
    """
    if outcome == "busy":
        return Tick(settings.fast_s)
    share_s = endpoints / (0.5 * settings.scrapes_per_s)
    if outcome == "quiet":
        start = tick.interval_s if tick.failures == 0 else settings.fast_s
        return Tick(min(start * settings.growth, max(settings.idle_s, share_s)))
    return Tick(min(tick.interval_s * 2.0, max(settings.failed_s, share_s)), tick.failures + 1)


def wait_s(tick: Tick, draw: float, settings: TickSettings) -> float:
    """Seconds to sleep; `draw` is uniform in [0, 1) and moves the interval by up to `jitter` to either side."""
    return max(FLOOR_S, tick.interval_s * (1.0 + settings.jitter * (2.0 * draw - 1.0)))


class Pace:
    """Spaces scrape starts so that all endpoints together keep to a rate: first come, first served.

    An endpoint holds one place at a time, so past the budget every endpoint slows down by the same factor and
    the wait is never longer than endpoints / rate.
    """

    def __init__(self, per_s: float) -> None:
        self._gap = 1.0 / per_s
        self._next = float("-inf")

    def delay(self, now: float) -> float:
        """Take the next place; returns the seconds until it, 0 within the budget."""
        place = max(now, self._next)
        self._next = place + self._gap
        return place - now
