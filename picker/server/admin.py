"""HTTP for operators: Prometheus metrics on one port, the decision log and the pool as JSON on another (localhost)."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.routing.decisions import as_json
from picker.routing.router import Router
from picker.telemetry.endpoints import EndpointTallies

MAX_DECISIONS = 1000
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Source(Protocol):
    """Anything that can say its metrics."""

    def collect(self) -> Iterator[Metric]: ...


class _Collector(Collector):
    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        return self._source.collect()


def metrics_app(sources: Iterable[Source]) -> web.Application:
    """`GET /metrics` in the format that the scraper accepts."""
    registry = CollectorRegistry(auto_describe=False)
    for source in sources:
        registry.register(_Collector(source))

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


class Together:
    """Several pools' metrics on one page: every sample says its pool in the label `name`, families are told once."""

    def __init__(self, pools: Mapping[str, Sequence[Source]]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pool, sources in self._pools.items():
            for source in sources:
                for family in source.collect():
                    told = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    told.samples += [s._replace(labels={"name": pool, **s.labels}) for s in family.samples]
        yield from families.values()


@dataclass(frozen=True, slots=True)
class Shown:
    """One pool, as the admin port shows it. `learning` is what `/learning` tells, None where it does not learn; `plan`
    is what hand-off proxies are told, with its entity tag, None while there is no pool."""

    router: Router
    tallies: EndpointTallies
    learning: Callable[[], dict[str, Any]] | None = None
    plan: Callable[[], tuple[str, bytes] | None] = lambda: None


def admin_app(pools: Mapping[str, Shown], clock_offset_s: float) -> web.Application:
    """`/pool`, `/plan`, `/decisions?count=N`, `/decisions/REQUEST_ID`, `/learning`, each of the first pool or of
    `?pool=NAME`.

    `clock_offset_s` turns the routers' clock into Unix time.
    """

    async def pool(request: web.Request, shown: Shown) -> web.Response:
        router = shown.router
        rows = _pool(router, shown.tallies)
        return _json({"policy": router.policy.name, "version": router.pool.view.version, "endpoints": rows})

    async def decisions(request: web.Request, shown: Shown) -> web.Response:
        text = request.query.get("count", "20")
        if not text.isascii() or not text.isdigit() or len(text) > 6:
            return _json({"error": "count must be a whole number"}, status=400)
        found = shown.router.log.last(min(int(text), MAX_DECISIONS))
        return _json([_decision(d) for d in found])

    async def decision(request: web.Request, shown: Shown) -> web.Response:
        found = shown.router.log.by_request_id(request.match_info["request_id"])
        if not found:
            return _json(
                {"error": "no kept decision has this request id; the log holds the last picks only"}, status=404
            )
        return _json([_decision(d) for d in found])

    def _decision(decision: Any) -> dict[str, Any]:
        return {**as_json(decision), "at": decision.at + clock_offset_s}

    async def learned(request: web.Request, shown: Shown) -> web.Response:
        if shown.learning is None:
            return _json({"error": f"policy {shown.router.policy.name} does not learn"}, status=404)
        return _json(shown.learning())

    async def plan(request: web.Request, shown: Shown) -> web.Response:
        page = shown.plan()
        if page is None:
            return _json({"error": "no pool is known yet"}, status=503)
        return web.Response(body=page[1], content_type="application/json")

    def of_its_pool(show: Callable[[web.Request, Shown], Awaitable[web.Response]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            shown = pools.get(request.query.get("pool", next(iter(pools))))
            if shown is None:
                return _json({"error": "no such pool", "pools": list(pools)}, status=404)
            return await show(request, shown)

        return handle

    app = web.Application()
    app.router.add_get("/learning", of_its_pool(learned))
    app.router.add_get("/pool", of_its_pool(pool))
    app.router.add_get("/plan", of_its_pool(plan))
    app.router.add_get("/decisions", of_its_pool(decisions))
    app.router.add_get("/decisions/{request_id:.+}", of_its_pool(decision))
    return app


def _pool(router: Router, tallies: EndpointTallies) -> list[dict[str, Any]]:
    view, table, ledger = router.pool.view, router.table, router.ledger
    rows = []
    for endpoint, slot in zip(view.endpoints, view.slots.tolist(), strict=True):
        rows.append(
            {
                "address": endpoint.address,
                "name": endpoint.name,
                "engine": endpoint.engine,
                "hardware": endpoint.hardware,
                "running": float(table.columns[scraped.RUNNING, slot]),
                "waiting": float(table.columns[scraped.WAITING, slot]),
                "kv_usage": float(table.columns[scraped.KV_USAGE, slot]),
                "in_flight": float(ledger.columns[own.IN_FLIGHT, slot]),
                "queued_tokens": float(ledger.columns[own.QUEUED_TOKENS, slot]),
                "failing": router.failing.told(slot, router.now),
                **tallies.as_json(endpoint.address),
            }
        )
    return rows


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
