"""The two HTTP ports for operators."""

import json
import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Generic, TypeAlias, TypeVar

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from small_service import ADDRESSES, CHAT, Clock, make_service

from picker.engines.approximate import ApproximateIndex
from picker.engines.kv_stream import KvCount
from picker.engines.scrape import ScrapeCount
from picker.routing.outcome import Fault, Outcome
from picker.server.admin import MAX_DECISIONS, Shown, Together, admin_app, metrics_app
from picker.server.service import Service
from picker.telemetry.endpoints import EndpointTallies
from picker.telemetry.metrics import PoolMetrics
from picker.telemetry.sources import IndexMetrics, SourceMetrics

Client: TypeAlias = "TestClient[web.Request, web.Application]"
T = TypeVar("T")
OFFSET_S = 1_700_000_000.0


class Counted(Generic[T]):
    """Whoever scrapes or listens: one good scrape and one batch of events of the first endpoint."""

    def __init__(self, count: T) -> None:
        self.counts = {0: count}


@pytest.fixture
def service() -> Service:
    return make_service(Clock())


def pick(service: Service, request_id: str, outcome: Outcome | None = None) -> int:
    headers = {"x-request-id": request_id}
    request = service.reader.finish(service.reader.parse("/v1/chat/completions", headers, CHAT))
    decision = service.router.pick(request, None, service.clock())
    if outcome is not None:
        service.finish(decision.flight, outcome)
    return decision.flight


@pytest_asyncio.fixture
async def admin(service: Service) -> AsyncIterator[Client]:
    async with TestClient(
        TestServer(admin_app({"chat": Shown(service.router, EndpointTallies())}, OFFSET_S))
    ) as client:
        yield client


@pytest_asyncio.fixture
async def metrics(service: Service) -> AsyncIterator[Client]:
    router = service.router
    sources = (
        service.metrics,
        PoolMetrics(router, "chat"),
        SourceMetrics(router, Counted(ScrapeCount(ok=3, failed=1)), Counted(KvCount(gaps=2))),
        IndexMetrics({"events": ApproximateIndex(), "picks": ApproximateIndex()}),
    )
    async with TestClient(TestServer(metrics_app(sources))) as client:
        yield client


async def test_the_pool_shows_every_endpoint(service: Service, admin: Client) -> None:
    pick(service, "a")
    shown = await (await admin.get("/pool")).json()
    assert shown["policy"] == "multiplicative"
    assert [row["address"] for row in shown["endpoints"]] == list(ADDRESSES)
    assert sum(row["in_flight"] for row in shown["endpoints"]) == 1
    assert {"running", "waiting", "kv_usage", "queued_tokens", "picks", "failed", "ttft_ms"} <= shown["endpoints"][
        0
    ].keys()


async def test_an_endpoint_that_fails_is_seen_on_the_pool_in_the_log_and_in_metrics(
    service: Service, admin: Client, metrics: Client
) -> None:
    pick(service, "a", Outcome(status=503, served=ADDRESSES[1], fault=Fault.UNREACHED))
    pick(service, "b")
    rows = (await (await admin.get("/pool")).json())["endpoints"]
    shown = {"state": "left out", "because": "unreached", "in_a_row": 1, "for_s": 1.0}
    assert [row["failing"] for row in rows] == [None, shown, None]
    newest, oldest = await (await admin.get("/decisions")).json()
    assert (newest["left_out"], oldest["left_out"]) == ([ADDRESSES[1]], [])
    assert oldest["outcome"]["fault"] == "unreached"
    found = await samples(metrics)
    assert found["picker_endpoint_failures_total"] == {("unreached",): 1, ("broken",): 0}
    assert found["picker_endpoint_left_out"] == {(address,): address == ADDRESSES[1] for address in ADDRESSES}


async def test_decisions_come_newest_first_with_reasons_and_outcome(service: Service, admin: Client) -> None:
    pick(service, "first", Outcome(status=200, ttft_s=0.25, duration_s=1.0, complete=True))
    pick(service, "second")
    newest, oldest = await (await admin.get("/decisions?count=2")).json()
    assert (newest["request_id"], oldest["request_id"]) == ("second", "first")
    assert newest["outcome"] is None
    assert (oldest["outcome"]["status"], oldest["outcome"]["ttft_ms"]) == (200, 250.0)
    row = newest["endpoints"][0]
    assert {"batch", "queued_tokens", "hit_tokens", "new_tokens", "cost", "reasons"} <= row.keys()
    assert newest["chosen"] in ADDRESSES
    assert newest["at"] == OFFSET_S + service.clock()


async def test_what_is_not_finite_is_null(service: Service, admin: Client) -> None:
    pick(service, "a")
    text = await (await admin.get("/decisions")).text()
    (decision,) = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert decision["endpoints"][0]["age_s"] is None


async def test_a_request_id_finds_all_its_picks(service: Service, admin: Client) -> None:
    for name in ("a/b?", "other", "a/b?"):
        pick(service, name)
    found = await (await admin.get("/decisions/a%2Fb%3F")).json()
    assert [decision["request_id"] for decision in found] == ["a/b?", "a/b?"]
    assert found[0]["flight"] > found[1]["flight"]


async def test_an_unknown_request_id_is_a_404_that_says_why(admin: Client) -> None:
    response = await admin.get("/decisions/nobody")
    assert response.status == 404
    assert "nobody" not in (await response.json())["error"]


async def test_what_is_learned_is_told_by_policies_that_learn(service: Service, admin: Client) -> None:
    silent = await admin.get("/learning")
    assert (silent.status, await silent.json()) == (404, {"error": "policy multiplicative does not learn"})
    learns = admin_app({"chat": Shown(service.router, EndpointTallies(), lambda: {"version": 3})}, OFFSET_S)
    async with TestClient(TestServer(learns)) as client:
        assert await (await client.get("/learning")).json() == {"version": 3}


async def test_of_several_pools_the_first_is_shown_or_the_one_that_is_asked_for(service: Service) -> None:
    other = make_service(Clock(), addresses=("10.9.9.9:8000",))
    pools = {"chat": Shown(service.router, EndpointTallies()), "embed": Shown(other.router, EndpointTallies())}
    async with TestClient(TestServer(admin_app(pools, OFFSET_S))) as client:
        found = [await (await client.get(f"/pool{query}")).json() for query in ("", "?pool=chat", "?pool=embed")]
        assert [len(shown["endpoints"]) for shown in found] == [3, 3, 1]
        unknown = await client.get("/decisions?pool=elsewhere")
        assert (unknown.status, (await unknown.json())["pools"]) == (404, ["chat", "embed"])


async def test_the_metrics_of_several_pools_are_told_apart_by_name(service: Service) -> None:
    other = make_service(Clock(), addresses=("10.9.9.9:8000",))
    pick(service, "a")
    both = Together({n: [s.metrics, PoolMetrics(s.router, n)] for n, s in (("chat", service), ("embed", other))})
    async with TestClient(TestServer(metrics_app([both]))) as client:
        found = await samples(client)
    assert found["llm_d_epp_ready_endpoints"] == {("chat",): 3, ("embed",): 1}
    assert found["llm_d_epp_request_total"] == {("m", "chat", "m"): 1}
    assert found["llm_d_epp_extproc_streams_inflight"] == {("chat",): 0, ("embed",): 0}


@pytest.mark.parametrize("count", ["-1", "x", "", "1.5", "9999999", "²", "%00"])
async def test_a_count_that_is_no_number_is_a_400(admin: Client, count: str) -> None:
    response = await admin.get("/decisions", params={"count": count})
    assert response.status == 400
    assert (await response.json())["error"]


async def test_a_large_count_gives_what_there_is(service: Service, admin: Client) -> None:
    for i in range(MAX_DECISIONS + 5):
        pick(service, str(i), Outcome())
    assert len(await (await admin.get("/decisions?count=999999")).json()) == MAX_DECISIONS


NAMES = {
    "llm_d_epp_request_total",
    "llm_d_epp_request_error_total",
    "llm_d_epp_request_duration_seconds_bucket",
    "llm_d_epp_request_ttft_seconds_bucket",
    "llm_d_epp_request_streaming_tpot_seconds_bucket",
    "llm_d_epp_request_ntpot_seconds_bucket",
    "llm_d_epp_request_input_tokens_bucket",
    "llm_d_epp_request_output_tokens_bucket",
    "llm_d_epp_request_cached_tokens_bucket",
    "llm_d_epp_request_running",
    "llm_d_epp_scheduler_attempts_total",
    "llm_d_epp_average_kv_cache_utilization",
    "llm_d_epp_average_queue_size",
    "llm_d_epp_average_running_requests",
    "llm_d_epp_std_dev_queue_size",
    "llm_d_epp_ready_endpoints",
    "llm_d_epp_per_endpoint_queue_size",
    "llm_d_epp_datalayer_poll_errors_total",
    "llm_d_epp_prefix_indexer_size",
    "picker_prefix_hit_error_tokens_bucket",
    "picker_prefix_calibration_ratio",
    "picker_kv_gaps_total",
    "picker_scrapes_total",
}


async def samples(metrics: Client) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric name and label values in the order of the labels' names, read by Prometheus's own parser."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(await (await metrics.get("/metrics")).text()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(v for _, v in sorted(sample.labels.items()))] = sample.value
    return found


async def test_the_page_has_the_names_that_dashboards_ask_for(service: Service, metrics: Client) -> None:
    whole = Outcome(200, None, True, 0.25, 1.25, 120, 64, 5, True)
    pick(service, "a", whole)
    service.metrics.refused("m", 400)
    found = await samples(metrics)
    assert found.keys() >= NAMES
    assert found["llm_d_epp_ready_endpoints"] == {("chat",): 3}
    assert found["llm_d_epp_request_total"] == {("m", "m"): 1}
    assert found["llm_d_epp_request_error_total"] == {("400", "m"): 1}
    assert found["llm_d_epp_datalayer_poll_errors_total"] == {(ADDRESSES[0], "metrics-data-source"): 1}
    assert found["picker_kv_gaps_total"] == {(ADDRESSES[0],): 2}


async def test_the_page_of_an_idle_picker_can_be_read(metrics: Client) -> None:
    found = await samples(metrics)
    assert not any(math.isnan(value) for family in found.values() for value in family.values())


async def test_a_hostile_model_name_leaves_the_page_readable(service: Service, metrics: Client) -> None:
    name = 'a"b\\c\nd{}=\u2028\x00é'
    body = json.dumps({**json.loads(CHAT), "model": name}).encode()
    request = service.reader.finish(service.reader.parse("/v1/chat/completions", {}, body))
    service.router.pick(request, None, 0.0)
    response = await metrics.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.status == 200
    assert (name, name) in (await samples(metrics))["llm_d_epp_request_total"]


async def test_prometheus_gets_the_format_that_it_accepts(service: Service, metrics: Client) -> None:
    pick(service, "a", Outcome(200, None, True, 0.25, 1.25, 120, 64, 5, True))
    response = await metrics.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    read: Callable[[str], Iterable[Metric]] = read_openmetrics
    names = [family.name for family in read(await response.text())]
    assert len(names) == len(set(names)) > 30
