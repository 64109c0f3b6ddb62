"""What an llm-d-router configuration may say that picker does not do, and why.

Plugin types and fields of llm-d-router v0.10, as its registration lists and its configuration reference name them.
"""

_WHY = {
    "every API is recognised by its path; leave it out": (
        "openai-parser anthropic-parser vllmhttp-parser sglanghttp-parser vllmgrpc-parser vertexai-parser "
        "passthrough-parser"
    ),
    "engines are scraped and prefixes indexed without configuration; leave it out": (
        "metrics-data-source core-metrics-extractor approx-prefix-cache-producer precise-prefix-cache-producer "
        "inflight-load-producer token-producer session-id-producer models-data-source models-data-extractor "
        "endpoint-notification-source k8s-notification-source"
    ),
    "use prefix-cache-scorer, which reads the engines' KV events where there are any": "precise-prefix-cache-scorer",
    "use random-policy": "random-picker",
    "picks are the lowest cost, ties at random": "weighted-random-picker",
    "use sticky-until-saturated-policy": "prefix-cache-affinity-filter token-load-scorer",
    "use least-request-policy": "running-requests-size-scorer active-request-scorer load-aware-scorer",
    "prefill and decode are not separated": (
        "prefill-filter decode-filter encode-filter disagg-profile-handler disagg-headers-handler "
        "prefill-header-handler pd-profile-handler data-parallel-profile-handler prefix-based-pd-decider "
        "always-disagg-pd-decider always-disagg-multimodal-decider burst-prefix p2p-source"
    ),
    "endpoints are not filtered by label or attribute": (
        "by-label label-selector-filter endpoint-attribute-filter endpoint-attribute-scorer topology-affinity-filter "
        "topology-affinity-scorer header-label-affinity-scorer context-length-aware utilization-filter "
        "topology-extractor"
    ),
    "sessions are not pinned; their prefixes are found by content": (
        "session-affinity-filter session-affinity-scorer no-hit-lru-scorer"
    ),
    "LoRA and encoder caches are not scored": (
        "lora-affinity-scorer mm-embeddings-cache-scorer mm-embeddings-cache-producer"
    ),
    "latency is not predicted": (
        "predicted-latency-producer latency-scorer slo-headroom-tier-filter latency-slo-admitter probabilistic-admitter"
    ),
    "requests are not queued or shed by priority": (
        "global-strict-fairness-policy round-robin-fairness-policy program-aware-fairness fcfs-ordering-policy "
        "edf-ordering-policy slo-deadline-ordering-policy static-usage-limit-policy priority-holdback-policy "
        "soft-reflective-ceiling-policy utilization-detector concurrency-detector agent-identity"
    ),
    "there is one profile": "header-profile-handler",
    "endpoints come from the command line": "file-discovery",
    "GPU metrics are not read": "dcgm-data-source dcgm-extractor",
    "costs are not reported in metadata": "request-attribute-reporter",
}

UNSUPPORTED_PLUGINS: dict[str, str] = {name: why for why, names in _WHY.items() for name in names.split()}
"""Plugin type to the reason."""

UNSUPPORTED_FIELDS: dict[str, str] = {
    "dataLayer": "engines are watched without configuration; leave it out",
    "data": "engines are watched without configuration; leave it out",
    "flowControl": "requests are not queued",
    "saturationDetector": "requests are not queued",
    "requestHandler": "every API is recognised by its path; leave it out",
    "parser": "every API is recognised by its path; leave it out",
}
"""Top-level field to the reason."""

UNSUPPORTED_GATES: dict[str, str] = {"flowControl": "requests are not queued"}
"""Feature gate to the reason."""

IGNORED_GATES = frozenset({"haPopulateNonLeaderDatastore"})
"""Feature gates without a meaning here."""
