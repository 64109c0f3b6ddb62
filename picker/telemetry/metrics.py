"""Metrics of one picker process under the names that dashboards of llm-d-router know, and a few of our own.

Names shared with llm-d-router start with `llm_d_epp_`; what only picker has starts with `picker_`.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.engines.rows import Column
from picker.requests.request import Request
from picker.routing.decisions import Decision
from picker.routing.router import Router
from picker.telemetry.tally import BYTES, FAST_SECONDS, OTHER, SECONDS, SIGNED_TOKENS, TOKENS, Cells, Count, Spread, Sum

MODEL = ("model_name", "target_model_name")
MODELS = 1000
"""Pairs of models told apart; the others count as one."""


class ModelMetrics(Struct, frozen=True, gc=False):
    """What is counted of each request, of one pair of models."""

    requests: Sum
    request_bytes: Cells
    duration: Cells
    ntpot: Cells
    ttft: Cells
    ttft_streamed: Cells
    tpot: Cells
    input_tokens: Cells
    output_tokens: Cells
    cached_tokens: Cells


class RequestMetrics:
    """Watches a router: one call at pick, one at end."""

    def __init__(self) -> None:
        self.requests = Count("llm_d_epp_request", "Requests picked for.", MODEL)
        self.errors = Count(
            "llm_d_epp_request_error", "Requests refused or failed, by status.", ("model_name", "error_code")
        )
        self.duration = Spread("llm_d_epp_request_duration_seconds", "Arrival to end of answer.", SECONDS, MODEL)
        self.request_bytes = Spread("llm_d_epp_request_size_bytes", "Request body size.", BYTES, MODEL)
        self.input_tokens = Spread(
            "llm_d_epp_request_input_tokens", "Prompt tokens, as the answer reports them.", TOKENS, MODEL
        )
        self.output_tokens = Spread("llm_d_epp_request_output_tokens", "Completion tokens.", TOKENS, MODEL)
        self.cached_tokens = Spread("llm_d_epp_request_cached_tokens", "Cached prompt tokens.", TOKENS, MODEL)
        self.ttft = Spread(
            "llm_d_epp_request_ttft_seconds", "Arrival to first body byte.", SECONDS, (*MODEL, "streaming"), 2 * MODELS
        )
        self.tpot = Spread(
            "llm_d_epp_request_streaming_tpot_seconds", "Time per output token after the first.", FAST_SECONDS, MODEL
        )
        self.ntpot = Spread("llm_d_epp_request_ntpot_seconds", "Duration per output token.", SECONDS, MODEL)
        self.attempts = Count(
            "llm_d_epp_scheduler_attempts", "Picks.", ("status", "target_model_name", "endpoint_name"), 4096
        )
        self.pick_seconds = Spread("llm_d_epp_scheduler_e2e_duration_seconds", "Time of one pick.", FAST_SECONDS)
        self.hit_error = Spread(
            "picker_prefix_hit_error_tokens", "Predicted minus reported cached tokens.", SIGNED_TOKENS, ("matching",)
        )
        self.predicted_hit = Count(
            "picker_prefix_hit_predicted_tokens", "Predicted cached tokens of answers that report them.", ("matching",)
        )
        self.reported_hit = Count(
            "picker_prefix_hit_reported_tokens", "Cached tokens that answers reported.", ("matching",)
        )
        self.fallbacks = Count("picker_fallback_served", "Answers served by another endpoint than the pick.")
        self.streams = Count("llm_d_epp_extproc_streams", "Finished ext_proc streams, by gRPC code.", ("code",))
        self.stream_seconds = Spread(
            "llm_d_epp_extproc_stream_duration_seconds", "Life of an ext_proc stream.", SECONDS
        )
        self.log_records = Count(
            "picker_access_log_records", "Access-log records, by what became of them.", ("result",)
        )
        self.protocol_errors = Count("picker_extproc_protocol_errors", "Messages that ext_proc does not know there.")
        self.pick_s, self.stream_s = self.pick_seconds.of(), self.stream_seconds.of()
        self.streams_inflight = 0
        self._models: dict[tuple[str, str], ModelMetrics] = {}

    def of(self, request: Request) -> ModelMetrics:
        """Those of the model that the client asked for and the one that the engine is asked for: another one after a
        rewrite."""
        pair = (request.client_model or request.model, request.model)
        return self._models.get(pair) or self._met(pair)

    def _met(self, pair: tuple[str, str]) -> ModelMetrics:
        if len(self._models) >= MODELS:
            pair = (OTHER, OTHER)
        metrics = ModelMetrics(
            self.requests.of(*pair),
            self.request_bytes.of(*pair),
            self.duration.of(*pair),
            self.ntpot.of(*pair),
            self.ttft.of(*pair, "false"),
            self.ttft.of(*pair, "true"),
            self.tpot.of(*pair),
            self.input_tokens.of(*pair),
            self.output_tokens.of(*pair),
            self.cached_tokens.of(*pair),
        )
        return self._models.setdefault(pair, metrics)

    def picked(self, decision: Decision) -> None:
        request = decision.request
        self.of(request).requests.add()
        self.attempts.add("success", request.model, decision.endpoints[decision.chosen].address)

    def ended(self, decision: Decision) -> None:
        request, outcome = decision.request, decision.outcome
        of = self.of(request)
        if outcome.status >= 400:
            self.errors.add(request.client_model or request.model, str(outcome.status))
        if outcome.duration_s is not None:
            of.duration.observe(outcome.duration_s)
            if outcome.completion_tokens:
                of.ntpot.observe(outcome.duration_s / outcome.completion_tokens)
        if outcome.ttft_s is not None:
            (of.ttft_streamed if outcome.streamed else of.ttft).observe(outcome.ttft_s)
        if (tpot := outcome.tpot_s) is not None:
            of.tpot.observe(tpot)
        if outcome.prompt_tokens is not None:
            of.input_tokens.observe(outcome.prompt_tokens)
        if outcome.completion_tokens is not None:
            of.output_tokens.observe(outcome.completion_tokens)
        if outcome.cached_tokens is not None:
            of.cached_tokens.observe(outcome.cached_tokens)
        if decision.fell_back:
            self.fallbacks.add()
        elif outcome.cached_tokens is not None:
            matching = "exact" if request.exact else "text"
            predicted = decision.predicted_hit_tokens
            self.hit_error.observe(predicted - outcome.cached_tokens, matching)
            self.predicted_hit.add(matching, by=predicted)
            self.reported_hit.add(matching, by=outcome.cached_tokens)

    def refused(self, model: str, status: int) -> None:
        """A request that was answered by the picker itself."""
        self.errors.add(model, str(status))
        self.attempts.add("failure", model, "")

    def collect(self) -> Iterator[Metric]:
        for family in vars(self).values():
            if isinstance(family, Count | Spread):
                yield from family.collect()
        yield gauge("llm_d_epp_extproc_streams_inflight", "Open ext_proc streams.", self.streams_inflight)


class PoolMetrics:
    """Gauges read off a router's tables when Prometheus asks."""

    def __init__(self, router: Router, pool: str) -> None:
        self._router = router
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        router, view = self._router, self._router.pool.view
        table, ledger, slots = router.table, router.ledger, view.slots
        addresses = [endpoint.address for endpoint in view.endpoints]
        for name, help, column in (
            ("kv_cache_utilization", "KV cache use, 0..1", table.columns[scraped.KV_USAGE, slots]),
            ("queue_size", "Waiting requests", table.columns[scraped.WAITING, slots]),
            ("running_requests", "Running requests", table.columns[scraped.RUNNING, slots]),
        ):
            yield gauge(f"llm_d_epp_average_{name}", f"{help}, mean over endpoints.", _mean(column), name=self._pool)
            yield gauge(
                f"llm_d_epp_std_dev_{name}", f"{help}, deviation over endpoints.", _deviation(column), name=self._pool
            )
        yield gauge("llm_d_epp_ready_endpoints", "Endpoints that can be picked.", len(slots), name=self._pool)
        per_endpoint = "model_server_endpoint"
        yield _each(
            "llm_d_epp_per_endpoint_queue_size",
            "Waiting requests.",
            per_endpoint,
            addresses,
            table.columns[scraped.WAITING, slots],
        )
        yield _each(
            "llm_d_epp_inflight_requests",
            "Own requests in flight.",
            "endpoint_name",
            addresses,
            ledger.columns[own.IN_FLIGHT, slots],
        )
        yield _each(
            "llm_d_epp_inflight_tokens",
            "Own uncached tokens queued for prefill.",
            "endpoint_name",
            addresses,
            ledger.columns[own.QUEUED_TOKENS, slots],
        )
        out = np.isin(slots, list(router.failing.left_out())).astype(np.float64)
        help = "1 while it fails: picks stay away, but for trials."
        yield _each("picker_endpoint_left_out", help, "endpoint_name", addresses, out)
        failures = CounterMetricFamily("picker_endpoint_failures", "Requests that endpoints failed.", labels=["fault"])
        for fault, count in router.failing.counts.items():
            failures.add_metric([fault.value], count)
        yield failures
        yield gauge(
            "llm_d_epp_request_running",
            "Own requests in flight, all endpoints.",
            float(ledger.columns[own.IN_FLIGHT, slots].sum()),
        )
        yield gauge(
            "picker_prefix_calibration_ratio",
            "Reported over predicted cached tokens in text mode.",
            router.hits.calibration.ratio,
        )


def gauge(metric: str, help: str, value: float, **labels: str) -> GaugeMetricFamily:
    """One gauge sample with its labels."""
    family = GaugeMetricFamily(metric, help, labels=list(labels))
    family.add_metric(list(labels.values()), float(value))
    return family


def _each(name: str, help: str, label: str, addresses: Iterable[str], column: Column) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=[label])
    for address, value in zip(addresses, column.tolist(), strict=True):
        family.add_metric([address], float(value))
    return family


def _mean(column: Column) -> float:
    return float(np.mean(column)) if len(column) else 0.0


def _deviation(column: Column) -> float:
    return float(np.std(column)) if len(column) else 0.0
