"""The shape of an EndpointPickerConfig, field by field, and the parameters of every plugin type that picker knows."""

from typing import Annotated, Any, Literal

import msgspec

from picker.policies.composed.pickers import PICKERS
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.policies.registry import REGISTRY
from picker.policies.strict import NoParams
from picker.pool.view import EngineKind

API_VERSION = "llm-d.ai/v1alpha1"
OLD_API_VERSION = "inference.networking.x-k8s.io/v1alpha1"
KIND = "EndpointPickerConfig"

_FEW = msgspec.Meta(max_length=64)
_NAME = msgspec.Meta(max_length=100)


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
    replicas_url: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """Valkey or Redis through which replicas tell each other what they have in flight and where prompts went."""
    older_metric_names: bool = False
    """Expose metrics under the names of older releases too."""


class Document(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    feature_gates: Annotated[list[str], _FEW] = []
    plugins: Annotated[list[Any], _FEW] = []
    scheduling_profiles: Annotated[list[Any], _FEW] = []
    data_layer: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    request_handler: dict[str, Any] | None = None
    parser: dict[str, Any] | None = None
    flow_control: dict[str, Any] | None = None
    saturation_detector: dict[str, Any] | None = None


class PluginSpec(msgspec.Struct, frozen=True):
    type: Annotated[str, _NAME]
    name: Annotated[str, _NAME] | None = None
    parameters: dict[str, Any] | None = None


class ProfileSpec(msgspec.Struct, frozen=True):
    name: str
    plugins: Annotated[list[Any], _FEW] = []


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    plugin_ref: str
    weight: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None


class PlainReference(msgspec.Struct, frozen=True, rename="camel"):
    plugin_ref: str


class DataSource(msgspec.Struct, frozen=True, rename="camel"):
    plugin_ref: str
    extractors: Annotated[list[Any], _FEW] = []


class DataLayer(msgspec.Struct, frozen=True, rename="camel"):
    inject_defaults: bool = True
    sources: Annotated[list[Any], _FEW] = []


class RequestHandler(msgspec.Struct, frozen=True):
    parsers: Annotated[list[Any], _FEW] = []


class FlowControl(msgspec.Struct, frozen=True, rename="camel"):
    saturation_detector: dict[str, Any] | None = None


class Picker(msgspec.Struct, frozen=True, rename="camel"):
    max_num_of_endpoints: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1


class CoreMetrics(msgspec.Struct, frozen=True, rename="camel"):
    default_engine: EngineKind = "vllm"
    engine_label_key: Literal["llm-d.ai/engine-type"] = "llm-d.ai/engine-type"
    engine_configs: Annotated[list[Any], msgspec.Meta(max_length=0)] = []


TESTING = ("header-based-testing-filter", "destination-endpoint-served-verifier")
"""For conformance suites of gateways: a request header steers the pick, an answer's header says who served."""
POLICIES = {f"{name}-policy": name for name in REGISTRY if name != "composed"}
"""Plugin type to policy. `composed` is what a profile of filters, scorers and a picker becomes."""
PARAMETERS: dict[str, type[msgspec.Struct]] = {
    **{kind: REGISTRY[name].params for kind, name in POLICIES.items()},
    **{kind: plugin.params for kind, plugin in FILTERS.items()},
    **{kind: plugin.params for kind, plugin in SCORERS.items()},
    **dict.fromkeys(PICKERS, Picker),
    "single-profile-handler": NoParams,
    "core-metrics-extractor": CoreMetrics,
    "picker-settings": Settings,
    **dict.fromkeys(TESTING, NoParams),
}
