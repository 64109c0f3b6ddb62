"""`picker engine`'s /metrics under vLLM's names: gauges and counters read off the model, latencies observed live."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from picker.simulator.engine import Engine

_TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
_ITL_S = (*(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),)
_E2E_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0),
    *(1920.0, 7680.0),
)
_LABELS = ("engine", "model_name")
FINISH_REASONS = ("stop", "length", "abort")


class EngineMetrics(Collector):
    """All metrics of one engine, in `registry`. Latencies are those of the wall clock, as clients see them."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._values = ("0", model)
        self.finished: Tally[str] = Tally()
        """Requests by finish reason."""
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.ttft_s = self._histogram("time_to_first_token_seconds", "Time to first token.", _TTFT_S)
        self.itl_s = self._histogram("inter_token_latency_seconds", "Time between two output tokens.", _ITL_S)
        self.e2e_s = self._histogram("e2e_request_latency_seconds", "Time from arrival to last token.", _E2E_S)

    def _histogram(self, name: str, text: str, buckets: Iterable[float]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=tuple(buckets))
        return family.labels(*self._values)

    def collect(self) -> Iterator[Metric]:
        engine, counters = self._engine, self._engine.counters
        yield self._gauge("num_requests_running", "Requests in the running batch.", len(engine.running))
        yield self._gauge("num_requests_waiting", "Requests that wait to be scheduled.", len(engine.waiting))
        yield self._gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.", engine.kv_usage)
        yield self._cache_config()
        yield self._counter("prefix_cache_queries", "Prompt tokens looked up.", counters.prefix_queries)
        yield self._counter("prefix_cache_hits", "Prompt tokens found cached.", counters.prefix_hits)
        yield self._counter("prompt_tokens", "Prompt tokens of admitted requests.", counters.prompt_tokens)
        yield self._counter("prompt_tokens_cached", "Prompt tokens not computed again.", counters.prefix_hits)
        yield self._counter("generation_tokens", "Generated tokens.", counters.generation_tokens)
        yield self._counter("num_preemptions", "Preemptions.", counters.preemptions)
        success = CounterMetricFamily(
            "vllm:request_success", "Ended requests by reason.", labels=(*_LABELS, "finished_reason")
        )
        for reason in FINISH_REASONS:
            success.add_metric((*self._values, reason), self.finished[reason])
        yield success

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _cache_config(self) -> Metric:
        size, blocks = self._engine.limits.block_size, self._engine.pool.size
        config = {
            "block_size": str(size),
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "engine": "0",
            "kv_cache_size_tokens": str(size * blocks),
            "num_gpu_blocks": str(blocks),
        }
        family = GaugeMetricFamily("vllm:cache_config_info", "KV cache configuration.", labels=tuple(config))
        family.add_metric(tuple(config.values()), 1)
        return family
