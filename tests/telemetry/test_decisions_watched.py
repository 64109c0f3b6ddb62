"""What watches a router's picks: request metrics, endpoint tallies, the bounded decision log."""

from typing import Any

import numpy as np
import pytest

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Hints, Request
from picker.routing.decisions import DecisionLog
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import Router, Watcher
from picker.telemetry.endpoints import RECENT, RECENT_PICKS, EndpointTallies
from picker.telemetry.metrics import RequestMetrics
from picker.telemetry.tally import Count, Spread

ADDRESSES = ("10.0.0.1:8000", "10.0.0.2:8000")


def make_router(*watchers: Watcher, log: DecisionLog | None = None, endpoints: int = 2) -> Router:
    rng = np.random.default_rng(0)
    hits = PrefixHits(PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0))
    router = Router(REGISTRY["round-robin"]({}, rng), hits, rng, watchers=watchers, log=log)
    router.update_pool(Endpoint(f"10.0.0.{i + 1}:8000") for i in range(endpoints))
    return router


def serve(router: Router, model: str = "m", request_id: str = "", **facts: Any) -> str:
    """One request from pick to end; returns the endpoint that was picked."""
    request = Request(model=model, prompt_tokens=100.0, hints=Hints(request_id=request_id))
    decision = router.pick(request, None, 0.0)
    router.ended(decision.flight, Outcome(**{"status": 200, "complete": True, **facts}))
    return decision.addresses[0]


def values(family: Count | Spread, suffix: str) -> dict[tuple[str, ...], float]:
    (metric,) = family.collect()
    return {tuple(s.labels.values()): s.value for s in metric.samples if s.name.endswith(suffix)}


def test_an_answers_facts_are_counted_under_its_model() -> None:
    metrics = RequestMetrics()
    tokens: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 48}
    serve(make_router(metrics), streamed=True, ttft_s=0.5, duration_s=2.5, **tokens)
    assert values(metrics.requests, "_total") == {("m", "m"): 1}
    assert values(metrics.ttft, "_sum") == {("m", "m", "true"): 0.5}
    assert values(metrics.tpot, "_sum") == {("m", "m"): 0.5}
    assert values(metrics.ntpot, "_sum") == {("m", "m"): 0.5}
    assert values(metrics.output_tokens, "_sum") == {("m", "m"): 5}
    buckets = values(metrics.hit_error, "_bucket")
    assert (buckets[("text", "-64")], buckets[("text", "-16")], buckets[("text", "+Inf")]) == (0, 1, 1)
    assert values(metrics.errors, "_total") == {}


def test_a_rewritten_request_is_counted_by_what_was_asked_for_and_by_what_the_engine_got() -> None:
    metrics = RequestMetrics()
    router = make_router(metrics)
    router.pick(Request(model="base-v2", client_model="base"), None, 0.0)
    assert values(metrics.requests, "_total") == {("base", "base-v2"): 1}


def test_what_an_answer_does_not_tell_is_not_counted() -> None:
    metrics = RequestMetrics()
    serve(make_router(metrics))
    for family in (metrics.ttft, metrics.tpot, metrics.duration, metrics.cached_tokens, metrics.hit_error):
        assert values(family, "_bucket") == {}


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_engines_error_is_counted_by_its_status(status: int) -> None:
    metrics = RequestMetrics()
    serve(make_router(metrics), status=status)
    assert values(metrics.errors, "_total") == {("m", str(status)): 1}


def test_a_fallback_is_counted_and_says_nothing_about_the_prediction() -> None:
    metrics = RequestMetrics()
    router = make_router(metrics)
    served = {"10.0.0.1:8000": ADDRESSES[1], "10.0.0.2:8000": ADDRESSES[0]}
    decision = router.pick(Request(model="m", prompt_tokens=100.0), None, 0.0)
    router.served(decision.flight, served[decision.addresses[0]])
    router.ended(decision.flight, Outcome(200, prompt_tokens=100, cached_tokens=96, complete=True))
    assert metrics.fallbacks.total() == 1
    assert values(metrics.hit_error, "_bucket") == {}
    assert router.hits.calibration.ratio == 1.0


def test_ten_thousand_model_names_make_a_thousand_labels() -> None:
    metrics = RequestMetrics()
    router = make_router(metrics)
    for i in range(1500):
        serve(router, model=f"model-{i}")
    found = values(metrics.requests, "_total")
    assert len(found) == 1001
    assert found[("other", "other")] == 500


def test_a_tally_follows_who_served() -> None:
    tallies = EndpointTallies()
    router = make_router(tallies)
    picked = [
        serve(router, ttft_s=0.1 * i, prompt_tokens=100, cached_tokens=25, status=500 if i == 3 else 200)
        for i in range(4)
    ]
    assert sorted(picked) == sorted(ADDRESSES * 2)
    shown = tallies.as_json(picked[3])
    assert (shown["picks"], shown["ended"], shown["failed"], shown["prefix_hit_ratio"]) == (2, 2, 1, 0.25)
    assert shown["ttft_ms"]["p50"] == pytest.approx(200.0)


def test_the_latest_picks_are_told_by_endpoint() -> None:
    tallies = EndpointTallies()
    router = make_router(tallies)
    for _ in range(RECENT_PICKS):
        serve(router)
    router.update_pool([Endpoint(ADDRESSES[0])])
    for _ in range(RECENT_PICKS // 2):
        serve(router)
    recent = [tallies.as_json(address)["recent_picks"] for address in ADDRESSES]
    assert recent == [RECENT_PICKS * 3 // 4, RECENT_PICKS // 4]


def test_a_tally_knows_nothing_about_an_endpoint_that_did_nothing() -> None:
    shown = EndpointTallies().as_json("10.9.9.9:1")
    assert (shown["picks"], shown["prefix_hit_ratio"], shown["ttft_ms"]) == (0, None, None)


def test_tallies_are_bounded_in_endpoints_and_in_samples() -> None:
    tallies = EndpointTallies(limit=1)
    router = make_router(tallies)
    for i in range(4 * RECENT):
        serve(router, ttft_s=1.0 if i < 2 * RECENT else 2.0)
    kept = [tallies.as_json(address) for address in ADDRESSES]
    assert sorted(each["picks"] for each in kept) == [0, 2 * RECENT]
    assert max(each["ttft_ms"]["p50"] for each in kept if each["ttft_ms"]) == 2000.0


def test_the_decision_log_forgets_the_oldest() -> None:
    log = DecisionLog(capacity=3)
    router = make_router(log=log)
    for i in range(5):
        serve(router, request_id=f"r{i}")
    assert [d.request.hints.request_id for d in log.last(10)] == ["r4", "r3", "r2"]
    assert log.by_request_id("r0") == []
    assert len(log) == 3


def test_the_decision_log_of_a_large_pool_is_bounded_by_its_rows() -> None:
    log = DecisionLog(capacity=1000, row_budget=200)
    router = make_router(log=log, endpoints=50)
    for _ in range(10):
        serve(router)
    assert len(log) == 4


def test_one_pick_is_kept_however_large_the_pool() -> None:
    log = DecisionLog(row_budget=1)
    serve(make_router(log=log, endpoints=50))
    assert len(log) == 1
