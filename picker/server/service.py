"""What all streams about one pool share: reader, router, metrics, and the word of the access log."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from picker.exchange.access_log import AccessRecord
from picker.exchange.machine import ExchangeSettings
from picker.requests.reader import Reader
from picker.routing.outcome import BROKEN_STATUS, Fault, Outcome
from picker.routing.router import Router
from picker.telemetry.metrics import RequestMetrics

LOG_GRACE_S = 5.0
"""Wait for an end that no connected log can tell."""
UNSURE_S = 60.0
"""Wait for an end that a connected log will tell unless Envoy gave the request up before it read the pick. Running
answers are reported at Envoy's flush interval, far sooner; without one, longer answers lose their outcome."""


class Relay(Protocol):
    """The other workers of this picker."""

    def send(self, lane: int, record: AccessRecord) -> bool: ...
    def peers_live(self) -> bool: ...
    def say_broken(self) -> None: ...


@dataclass(slots=True)
class _Awaited:
    """A flight whose end the access log owes us: since when, and for how many seconds we believe that it will tell."""

    since: float
    patience_s: float


class Service:
    """One worker's request path to one pool without its sockets. `honour_subset`: keep to the proxy's subset hint.
    `emit_scores`: tell the proxy what every candidate was worth."""

    def __init__(
        self,
        reader: Reader,
        router: Router,
        metrics: RequestMetrics,
        exchange: ExchangeSettings,
        *,
        honour_subset: bool = True,
        emit_scores: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reader = reader
        self.router = router
        self.metrics = metrics
        self.honour_subset, self.emit_scores = honour_subset, emit_scores
        self.clock = clock
        self.access_log_streams = 0
        self._exchange = exchange
        self._no_detach = replace(exchange, detach=False)
        self.relay: Relay | None = None
        self._awaited: dict[int, _Awaited] = {}
        self._doubted_at = -math.inf

    @property
    def access_log_live(self) -> bool:
        """Envoy's access log is connected: ends of answers will be told by it."""
        return self.access_log_streams > 0 or (self.relay is not None and self.relay.peers_live())

    def access_log_opened(self) -> None:
        """An Envoy connected its access log."""
        self.access_log_streams += 1

    def access_log_closed(self) -> None:
        """An Envoy's access log broke off: its Envoy may be gone, with all that it had to tell."""
        self.access_log_streams -= 1
        self.doubt()
        if self.relay is not None:
            self.relay.say_broken()

    def doubt(self) -> None:
        """Believe no awaited flight any more until the log speaks of it again."""
        self._doubted_at = now = self.clock()
        for awaited in self._awaited.values():
            awaited.since, awaited.patience_s = now, LOG_GRACE_S

    def await_log(self, flight: int, *, answering: bool) -> None:
        """This flight's stream is over; its end will be told by the access log, or was told already.

        That is certain once a log is connected and the answer has begun: Envoy logs no flight that it gave up before it
        read the pick.
        """
        if self.router.is_open(flight):
            now = self.clock()
            # An Envoy that dies takes its log and its streams along, in any order.
            if not self.access_log_live or now - self._doubted_at < LOG_GRACE_S:
                patience = LOG_GRACE_S
            else:
                patience = math.inf if answering else UNSURE_S
            self._awaited[flight] = _Awaited(now, patience)

    def exchange_settings(self) -> ExchangeSettings:
        """Settings for a new stream. Detaching needs somebody else to tell the end."""
        return self._exchange if self.access_log_live else self._no_detach

    def finish(self, flight: int, outcome: Outcome) -> None:
        """A flight ended: release it and learn from what the answer told."""
        self._awaited.pop(flight, None)
        decision = self.router.ended(flight, outcome, self.clock())
        if decision is None:
            return
        facts = decision.outcome
        if facts.prompt_tokens:
            self.reader.observe(decision.request, facts.prompt_tokens)

    def sweep(self) -> int:
        """Give up flights whose end nobody told or will tell; returns how many. Call it every second or so.

        Without an access log the end of a detached answer stays unknown. Envoy connects its log with the first record,
        so the wait is LOG_GRACE_S; should the answer still run then, the scrape shows it as another's request.
        """
        now, live = self.clock(), self.access_log_live
        swept = self.router.sweep(now)
        if swept or len(self._awaited) > self.router.settings.max_flights:
            self._awaited = {flight: a for flight, a in self._awaited.items() if self.router.is_open(flight)}
        unheard = [
            flight
            for flight, awaited in self._awaited.items()
            if now - awaited.since > (awaited.patience_s if live else LOG_GRACE_S)
        ]
        for flight in unheard:
            self.finish(flight, Outcome())
        return swept + len(unheard)

    def logged(self, record: AccessRecord) -> None:
        """Envoy's access log speaks of a request: its first body byte, or its end."""
        settings, flight = self.router.settings, record.flight
        if flight is None:
            self.metrics.log_records.add("foreign")
        elif self.router.is_open(flight):
            self._apply(flight, record)
        elif flight % settings.workers != settings.worker:
            relayed = self.relay is not None and self.relay.send(flight % settings.workers, record)
            self.metrics.log_records.add("relayed" if relayed else "lost")
        else:
            self.metrics.log_records.add("late")

    def _apply(self, flight: int, record: AccessRecord) -> None:
        now = self.clock()
        if record.served is not None:
            self.router.served(flight, record.served, now)
        if record.ttft_s is not None:
            self.router.first_byte(flight, now, record.ttft_s, record.status)
        if not record.ended:
            self.metrics.log_records.add("progress")
            if (awaited := self._awaited.get(flight)) is not None:
                awaited.patience_s = math.inf
            return
        self.metrics.log_records.add("end")
        outcome = Outcome(record.status, record.served)
        outcome.ttft_s, outcome.duration_s = record.ttft_s, record.duration_s
        outcome.prompt_tokens, outcome.cached_tokens = record.prompt_tokens, record.cached_tokens
        outcome.completion_tokens, outcome.complete = record.completion_tokens, record.complete
        outcome.fault = _fault(record)
        self.finish(flight, outcome)


def _fault(record: AccessRecord) -> Fault | None:
    """What this end says against the endpoint."""
    if record.unreached:
        return Fault.UNREACHED
    broken = record.broken_off or (record.status in BROKEN_STATUS and record.by_endpoint)
    return Fault.BROKEN if broken else None
