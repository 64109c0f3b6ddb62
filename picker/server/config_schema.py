"""The shape of an EndpointPickerConfig, field by field, and the parameters of every plugin type that picker knows."""

from typing import Annotated, Any, Literal

import msgspec

from picker.policies.registry import REGISTRY
from picker.policies.strict import NoParams

API_VERSION = "llm-d.ai/v1alpha1"
OLD_API_VERSION = "inference.networking.x-k8s.io/v1alpha1"
KIND = "EndpointPickerConfig"

_FEW = msgspec.Meta(max_length=64)


class Settings(msgspec.Struct, frozen=True, rename="camel"):
    """Parameters of `picker-settings`; every one may be left out."""

    response_path: Literal["access-log", "detach", "echo"] = "access-log"
    """How the end of an answer is learned: by Envoy's access log, by it after the first chunk, or by every chunk."""
    destinations: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    """Length of the ordered list for the proxy: the pick and its fallbacks. 1 for ORIGINAL_DST clusters."""
    steering_fields: Literal["strip", "refuse"] = "strip"
    """What happens to body fields that steer engines from outside, such as `kv_transfer_params`."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 30)] = 10 * 1024 * 1024
    """Larger request bodies are refused with 413."""
    models: Annotated[dict[str, str], _FEW] = {}
    """Model name to a folder with its tokenizer.json and chat template: prefixes match on token ids (exact mode)."""
    adapters: Annotated[dict[str, str], msgspec.Meta(max_length=1024)] = {}
    """LoRA adapter to the model of `models` that it adapts: its prompts are matched as the engine keys their blocks."""
    drain_timeout_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    """How long open streams may go on after a stop signal."""
    state_dir: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """Folder in which a policy that learns keeps what it learned; nowhere when empty. `--state-dir` goes before."""
    scrape_interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=1.5)] = 0.2
    """Between two scrapes of one busy engine; idle ones are scraped less often."""


class Document(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    feature_gates: Annotated[list[str], _FEW] = []
    plugins: Annotated[list[Any], _FEW] = []
    scheduling_profiles: Annotated[list[Any], _FEW] = []


class PluginSpec(msgspec.Struct, frozen=True):
    type: str
    name: str | None = None
    parameters: dict[str, Any] | None = None


class ProfileSpec(msgspec.Struct, frozen=True):
    name: str
    plugins: Annotated[list[Any], _FEW] = []


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    plugin_ref: str
    weight: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None


class MaxScorePicker(msgspec.Struct, frozen=True, rename="camel"):
    max_num_of_endpoints: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1


class PrefixScorer(msgspec.Struct, frozen=True, rename="camel"):
    prefix_length_weight: Annotated[float, msgspec.Meta(ge=0, le=0)] = 0.0
    block_size: int | None = None
    block_size_tokens: int | None = None
    hash_block_size: int | None = None
    auto_tune: bool | None = None
    max_prefix_blocks_to_match: int | None = None
    lru_capacity_per_server: int | None = None


SCORERS = {
    "queue-scorer": "queueWeight",
    "kv-cache-utilization-scorer": "kvWeight",
    "prefix-cache-scorer": "prefixWeight",
}
TESTING = ("header-based-testing-filter", "destination-endpoint-served-verifier")
"""For conformance suites of gateways: a request header steers the pick, an answer's header says who served."""
POLICIES = {f"{name}-policy": name for name in REGISTRY}
PARAMETERS: dict[str, type[msgspec.Struct]] = {
    **{f"{name}-policy": factory.params for name, factory in REGISTRY.items()},
    "queue-scorer": NoParams,
    "kv-cache-utilization-scorer": NoParams,
    "prefix-cache-scorer": PrefixScorer,
    "max-score-picker": MaxScorePicker,
    "single-profile-handler": NoParams,
    "picker-settings": Settings,
    **dict.fromkeys(TESTING, NoParams),
}
