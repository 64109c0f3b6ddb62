"""A service with real reader, router and exchange, on a clock that a test turns."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from picker.engines import ledger as own
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.rows import Rows
from picker.exchange.machine import ExchangeSettings
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.reader import Reader, ReaderSettings
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.routing.router import Router, RouterSettings, admit_all
from picker.server.service import Service
from picker.telemetry.metrics import RequestMetrics

ADDRESSES = ("10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000")
POST = {":method": "POST", ":path": "/v1/chat/completions", "x-request-id": "r1"}
CHAT = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello " * 100}]}).encode()


@dataclass
class Clock:
    """Seconds, turned by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Peers:
    """The other workers, as a service sees them."""

    live: bool = False
    full: bool = False
    sent: list[tuple[int, object]] = field(default_factory=list)
    broken: int = 0

    def send(self, worker: int, record: object) -> bool:
        if not self.full:
            self.sent.append((worker, record))
        return not self.full

    def peers_live(self) -> bool:
        return self.live

    def say_broken(self) -> None:
        self.broken += 1


def make_service(
    clock: Clock,
    *,
    addresses: tuple[str, ...] = ADDRESSES,
    exchange: ExchangeSettings | None = None,
    admits: Callable[[Request, Rows], bool] = admit_all,
    **settings: int,
) -> Service:
    rng = np.random.default_rng(0)
    metrics = RequestMetrics()
    hits = PrefixHits(PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0))
    router = Router(
        REGISTRY["multiplicative"]({}, rng),
        hits,
        rng,
        settings=RouterSettings(**settings),
        watchers=[metrics],
        admits=admits,
    )
    router.update_pool(Endpoint(address) for address in addresses)
    reader = Reader(ReaderSettings(steering="strip"))
    return Service(reader, router, metrics, exchange or ExchangeSettings(), clock=clock)


def in_flight(service: Service) -> float:
    """Requests that the ledger counts, all endpoints."""
    return float(service.router.ledger.columns[own.IN_FLIGHT].sum())


def queued(service: Service) -> float:
    """Uncached tokens that the ledger counts, all endpoints."""
    return float(service.router.ledger.columns[own.QUEUED_TOKENS].sum())
