"""Every header and metadata key of the gateway protocol in one place: the names we write, and the older ones."""

from typing import Final

# The pick: a request header and, with the same value, dynamic metadata in LB_NAMESPACE.
DESTINATION: Final = "x-gateway-destination-endpoint"
LB_NAMESPACE: Final = "envoy.lb"
# What every candidate was worth, in LB_NAMESPACE; only on demand.
SCORES: Final = "x-gateway-destination-endpoint-scores"
# Envoy's report of the endpoint that really served, in LB_NAMESPACE (override_host) or as a response attribute.
SERVED: Final = "x-gateway-destination-endpoint-served"
UPSTREAM_ADDRESS: Final = "upstream.address"
# Ours, in LB_NAMESPACE only. Clients cannot write metadata, so the access log brings back what we put there.
FLIGHT: Final = "picker-flight"

# gRPC metadata of an ext_proc stream: which of a picker's pools it is about. The proxy's configuration sets it.
POOL: Final = "x-picker-pool"

# The gateway's restriction of the pick.
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
SUBSET: Final = "x-gateway-destination-endpoint-subset"

# The gateway conformance suite: where a request may go, and who served it.
TEST_SELECTION: Final = "test-epp-endpoint-selection"
TEST_SERVED: Final = "x-conformance-test-served-endpoint"

REQUEST_ID: Final = "x-request-id"
DROPPED_REASON: Final = "x-llm-d-request-dropped-reason"

# Token counts that Envoy's metadata filters read from the answer, for the access log.
USAGE_NAMESPACE: Final = "picker.usage"
PROMPT_TOKENS: Final = "prompt_tokens"
CACHED_TOKENS: Final = "cached_tokens"
COMPLETION_TOKENS: Final = "completion_tokens"
# Access log tag: microseconds from the first byte of the request to the first body byte of the answer.
FIRST_BODY_BYTE: Final = "picker-first-body-byte-us"

# Headers by which a client could steer the proxy or a pod's sidecar. Never believed, always removed.
STEERING: Final = frozenset(
    {
        DESTINATION,
        SERVED,
        FLIGHT,
        SUBSET,
        "x-gateway-destination-endpoint-fallbacks",  # older form of the ordered list
        "target-pod",  # destination header before the protocol had a name for it
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-data-parallel-rank",
        "x-kv-cache-source-host-port",
    }
)
