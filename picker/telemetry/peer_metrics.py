"""The metrics of llm-d-router v0.10 and what becomes of each here: the same, or absent with the reason.

python -m picker.telemetry.peer_metrics       # the table "Metrics" of docs/migrate.md
"""

from collections.abc import Iterator
from dataclasses import dataclass

PREFIX = "llm_d_epp_"

REQUEST, POOL = "inference_objective_", "inference_pool_"
EXTENSION, SCHEDULER = "inference_extension_", "llm_d_inference_scheduler_"
"""Prefixes of older releases, of the reference endpoint picker and of llm-d-inference-scheduler."""


@dataclass(frozen=True, slots=True)
class PeerMetric:
    """`name` lacks the prefix. `older`: its name in older releases. `absent`: why it is not here. `differs`: how."""

    name: str
    older: str = ""
    absent: str = ""
    differs: str = ""


_NO_OBJECTIVES = "without `fairness_id` and `priority`"
_UNPREDICTED = "under `learned-policy` see `/learning` and `picker_model_*`"
_UNDIVIDED = "prefill and decode are not separated"
_UNQUEUED = "requests are not queued"
_UNMEASURED = "a pick is measured whole: `llm_d_epp_scheduler_e2e_duration_seconds`"
_OWN_INDEX = "see `picker_prefix_hit_*` and `picker_kv_*`"

METRICS = (
    PeerMetric("request_total", REQUEST + "request_total", differs=_NO_OBJECTIVES),
    PeerMetric("request_error_total", REQUEST + "request_error_total", differs="labels `model_name`, `error_code`"),
    PeerMetric("request_duration_seconds", REQUEST + "request_duration_seconds", differs=_NO_OBJECTIVES),
    PeerMetric("request_size_bytes", REQUEST + "request_sizes", differs=_NO_OBJECTIVES),
    PeerMetric("response_size_bytes", absent="answers do not pass by: Envoy's own statistics have their bytes"),
    PeerMetric("request_input_tokens", REQUEST + "input_tokens", differs=_NO_OBJECTIVES),
    PeerMetric("request_output_tokens", REQUEST + "output_tokens", differs=_NO_OBJECTIVES),
    PeerMetric("request_cached_tokens", REQUEST + "prompt_cached_tokens", differs=_NO_OBJECTIVES),
    PeerMetric("request_running", REQUEST + "running_requests", differs="one number, without labels"),
    PeerMetric("request_ntpot_seconds", REQUEST + "normalized_time_per_output_token_seconds", differs=_NO_OBJECTIVES),
    PeerMetric("request_ttft_seconds", differs=_NO_OBJECTIVES),
    PeerMetric("request_streaming_tpot_seconds", differs=_NO_OBJECTIVES),
    PeerMetric("request_streaming_itl_seconds", absent="answers do not pass by: their gaps are not seen"),
    PeerMetric("average_kv_cache_utilization", POOL + "average_kv_cache_utilization"),
    PeerMetric("average_queue_size", POOL + "average_queue_size"),
    PeerMetric("average_running_requests", POOL + "average_running_requests"),
    PeerMetric("std_dev_kv_cache_utilization"),
    PeerMetric("std_dev_queue_size"),
    PeerMetric("std_dev_running_requests"),
    PeerMetric("ready_endpoints", POOL + "ready_pods"),
    PeerMetric("per_endpoint_queue_size", POOL + "per_pod_queue_size", differs="the address; without `name`"),
    PeerMetric("scheduler_e2e_duration_seconds", EXTENSION + "scheduler_e2e_duration_seconds"),
    PeerMetric(
        "scheduler_attempts_total",
        EXTENSION + "scheduler_attempts_total",
        differs="`endpoint_name` is the address; without `namespace` and `port`",
    ),
    PeerMetric("request_processing_duration_seconds", absent=_UNMEASURED),
    PeerMetric("response_processing_duration_seconds", absent="answers do not pass by"),
    PeerMetric("plugin_duration_seconds", absent=_UNMEASURED),
    PeerMetric("model_rewrite_decisions_total", absent="`target_model_name` of `llm_d_epp_request_total` tells them"),
    PeerMetric("info", absent="`picker --version`, and the image's tag"),
    PeerMetric("datalayer_poll_errors_total", SCHEDULER + "datalayer_poll_errors_total", differs="and `endpoint`"),
    PeerMetric("datalayer_extract_errors_total", absent="a page that cannot be read is a poll error"),
    PeerMetric("prefix_indexer_size", EXTENSION + "prefix_indexer_size", differs="label `index`"),
    PeerMetric("prefix_indexer_hit_ratio", absent=_OWN_INDEX),
    PeerMetric("prefix_indexer_hit_bytes", absent=_OWN_INDEX),
    *(
        PeerMetric(f"encoder_cache_{part}", absent="encoder caches are not scored")
        for part in ("queries_total", "hits_total", "hit_ratio")
    ),
    *(
        PeerMetric(f"kv_cache_index_{part}", absent=_OWN_INDEX)
        for part in (
            "admissions_total",
            "evictions_total",
            "lookup_requests_total",
            "lookup_hits_total",
            "max_pod_hit_count_total",
            "lookup_latency_seconds",
        )
    ),
    *(
        PeerMetric(f"kv_cache_events_dedup_removed_hashes_{part}_total", absent=_OWN_INDEX)
        for part in ("suppressed", "forwarded")
    ),
    *(
        PeerMetric(name, absent=_UNPREDICTED)
        for name in (
            "inference_request_metric",
            "request_predicted_ttft_seconds",
            "request_predicted_tpot_seconds",
            "request_ttft_prediction_duration_seconds",
            "request_tpot_prediction_duration_seconds",
            "request_slo_violation_total",
        )
    ),
    *(PeerMetric(name, absent=_UNDIVIDED) for name in ("disagg_decision_total", "pd_decision_total")),
    *(
        PeerMetric(f"flow_control_{part}", absent=_UNQUEUED)
        for part in (
            "request_queue_duration_seconds",
            "dispatch_cycle_duration_seconds",
            "request_enqueue_duration_seconds",
            "queue_size",
            "queue_bytes",
            "pool_saturation",
            "stale_endpoints",
            "capacity_utilization_requests",
            "capacity_utilization_bytes",
            "requests_total",
        )
    ),
    *(
        PeerMetric(f"program_aware_{part}", absent=_UNQUEUED)
        for part in ("jains_fairness_index", "avg_wait_time_milliseconds", "attained_service_tokens")
    ),
    PeerMetric("extproc_streams_inflight"),
    PeerMetric("extproc_stream_duration_seconds"),
    PeerMetric("extproc_streams_total"),
    PeerMetric("inflight_requests", differs="label `endpoint_name`, the address"),
    PeerMetric("inflight_tokens", differs="the same; tokens until their first answer byte"),
)


def table() -> Iterator[str]:
    """Lines of Markdown."""
    yield f"| `{PREFIX}...` | here | with `olderMetricNames` also |"
    yield "|---|---|---|"
    for metric in METRICS:
        here = f"absent: {metric.absent}" if metric.absent else f"the same; {metric.differs}".removesuffix("; ")
        yield f"| `{metric.name}` | {here} | {f'`{metric.older}`' if metric.older else ''} |"


if __name__ == "__main__":
    print("\n".join(table()))
