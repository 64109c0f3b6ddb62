"""What an llm-d-router configuration may say that picker has no need of, or does not do, and why.

Plugin types, parameters and fields of llm-d-router v0.10, by its registration lists and its configuration reference.
What is not needed is passed over with a warning, so that a stock file starts; what would change picks is refused.
"""

from collections.abc import Mapping


def _table(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reason to words, turned into word to reason."""
    return {name: why for why, names in reasons.items() for name in names.split()}


NEEDLESS_PLUGINS = _table(
    {
        "every API is recognised by its path": (
            "openai-parser anthropic-parser vllmhttp-parser sglanghttp-parser passthrough-parser"
        ),
        "engines are scraped without configuration": (
            "metrics-data-source models-data-source models-data-extractor "
            "endpoint-notification-source k8s-notification-source"
        ),
        "what scorers need is known without configuration": (
            "approx-prefix-cache-producer precise-prefix-cache-producer inflight-load-producer session-id-producer"
        ),
        "prompts are measured by their bytes, or by the tokenizer in picker-settings.models": "token-producer",
    }
)
"""Plugin type to the reason why it does nothing here."""

ONLY_VALUES: dict[str, dict[str, tuple[object, str]]] = {
    "metrics-data-source": {
        "scheme": ("http", "engines are scraped over plain HTTP"),
        "path": ("/metrics", "engines are scraped at /metrics"),
    },
    "inflight-load-producer": {
        "addEstimatedOutputTokens": (False, "output tokens are not guessed"),
    },
}
"""Parameters of needless plugins that would change picks: the only value they may have, and why."""

NEEDLESS_PARAMETERS: dict[str, dict[str, str]] = {
    "prefix-cache-scorer": _table(
        {
            "blocks are those of the engines": (
                "blockSize blockSizeTokens hashBlockSize autoTune maxPrefixBlocksToMatch maxPrefixTokensToMatch "
                "lruCapacityPerServer"
            ),
            "the best index that there is for a model is used": "prefixMatchInfoProducerName",
        }
    ),
    "precise-prefix-cache-scorer": _table(
        {
            "engines' KV events are followed where the pool tells of them": (
                "tokenProcessorConfig indexerConfig kvEventsConfig speculativeIndexing"
            )
        }
    ),
    "prefix-cache-affinity-filter": _table(
        {"there is one source of each": "prefixMatchInfoProducerName inFlightLoadProducerName"}
    ),
    "active-request-scorer": _table(
        {"requests end when they end": "requestTimeout", "there is one ledger": "inFlightLoadProducerName"}
    ),
    "token-load-scorer": {"inFlightLoadProducerName": "there is one ledger"},
    "concurrency-detector": {"inFlightLoadProducerName": "there is one ledger"},
    "utilization-detector": {"metricsStalenessThreshold": "readings fade instead of being cut off"},
    "no-hit-lru-scorer": _table(
        {"there is one prefix index": "prefixPluginType prefixPluginName prefixMatchInfoProducerName"}
    ),
    "session-affinity-scorer": _table(
        {
            "there is one profile": "profileName",
            "a session whose endpoint is gone is bound anew at once": "missThreshold",
            "sessions are dropped when they are looked at": "evictionSweepSeconds",
            "sessions are not kept in cookies": "maxAge secure sameSite",
        }
    ),
    "session-affinity-filter": {"profileName": "there is one profile"},
}
"""Plugin type to its parameters that do nothing here, each with the reason."""

RENAMED = {"by-label-selector": "label-selector-filter", "tokenizer": "token-producer"}
"""Older plugin types and what they are called now."""

DEPRECATED = {"by-label": "label-selector-filter", "precise-prefix-cache-scorer": "prefix-cache-scorer"}
"""Plugin types that still work, and what to say instead."""

UNSUPPORTED_PLUGINS = _table(
    {
        "gRPC bodies are not read": "vllmgrpc-parser vertexai-parser",
        "prefill and decode are not separated": (
            "disagg-profile-handler disagg-headers-handler prefill-header-handler pd-profile-handler "
            "prefix-based-pd-decider always-disagg-pd-decider always-disagg-multimodal-decider "
            "disaggregatedset-rollout disaggregatedset-rollout-screener"
        ),
        "every port of a pod is an endpoint of its own": "data-parallel-profile-handler",
        "engines do not pull KV from each other": "p2p-source",
        "a burst of equal prompts sees itself without it": "burst-prefix",
        "endpoints are judged by what is known of every engine; filter by label instead": (
            "endpoint-attribute-filter endpoint-attribute-scorer utilization-filter topology-affinity-filter "
            "topology-affinity-scorer topology-extractor header-label-affinity-scorer context-length-aware"
        ),
        "encoder caches are not scored": "mm-embeddings-cache-scorer mm-embeddings-cache-producer",
        "use learned-policy, which predicts latency without services beside it": (
            "predicted-latency-producer latency-scorer slo-headroom-tier-filter latency-slo-admitter"
        ),
        "only negative priority is turned away, and only while the pool is full": "probabilistic-admitter",
        "requests are not queued": (
            "global-strict-fairness-policy round-robin-fairness-policy program-aware-fairness fcfs-ordering-policy "
            "edf-ordering-policy slo-deadline-ordering-policy static-usage-limit-policy priority-holdback-policy "
            "soft-reflective-ceiling-policy agent-identity"
        ),
        "there is one profile": "header-profile-handler",
        "endpoints come from the command line": "file-discovery",
        "GPU metrics are not read": "dcgm-data-source dcgm-extractor",
        "costs are not reported in metadata": "request-attribute-reporter",
    }
)
"""Plugin type to the reason why it is refused."""


def refusal(kind: str) -> str | None:
    """Why this plugin type is refused, None where it is not, or not known at all."""
    return "one cluster is served" if kind.startswith("multicluster-") else UNSUPPORTED_PLUGINS.get(kind)


_DATA = {
    "discovery": "endpoints come from the command line",
    "peerDiscovery": "several pickers share nothing",
    "crossReplicaSyncerPluginRef": "several pickers share nothing",
    "crossReplicaSyncInterval": "several pickers share nothing",
}
_QUEUES = _table(
    {
        "requests are not queued": (
            "maxBytes maxRequests defaultRequestTTL noEndpointRequestTTL defaultPriorityBand "
            "defaultNegativePriorityBand priorityBands usageLimitPolicyPluginRef enableEviction"
        )
    }
)
UNSUPPORTED_FIELDS: dict[str, dict[str, str]] = {
    "dataLayer": _DATA,
    "data": _DATA,
    "requestHandler": {},
    "flowControl": _QUEUES,
}
"""Top-level section to those of its fields that are refused, each with the reason."""

UNSUPPORTED_GATES: dict[str, str] = {"flowControl": "requests are not queued"}
"""Feature gate to the reason."""

IGNORED_GATES = frozenset({"haPopulateNonLeaderDatastore"})
"""Feature gates without a meaning here."""
