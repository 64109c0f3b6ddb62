"""The configuration file: an EndpointPickerConfig as llm-d-router reads it, with picker's policies as plugin types.

Pure: text in, `PickerConfig` out, or `ConfigError` with every problem as `file:line:column: message`. One scheme:

- `NAME-policy` is the policy NAME of docs/policies.md, with its parameters. A profile names one of them, or
- filters, scorers with weights and a picker of llm-d-router: the policy `composed`.
- `maxNumOfEndpoints` of a picker is the length of the list of destinations; 1 as in llm-d-router where its plugins are
  used and do not say.
- `picker-settings` carries, as parameters, what only picker has (`Settings`).

Where nothing is said the policy is `multiplicative`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from picker.exchange import keys
from picker.exchange.machine import ExchangeSettings
from picker.policies.composed.plugins import DETECTORS
from picker.policies.composed.saturation import Admission
from picker.policies.composed.sessions import token_header
from picker.policies.policy import Policy
from picker.policies.registry import DEFAULT_POLICY, REGISTRY
from picker.policies.strict import did_you_mean, quoted
from picker.pool.view import EngineKind
from picker.server import config_profile, config_sections
from picker.server.config_notes import ConfigError, Notes, items, unsupported
from picker.server.config_plugins import Declared, declared
from picker.server.config_schema import (
    API_VERSION,
    KIND,
    OLD_API_VERSION,
    POLICIES,
    TESTING,
    CoreMetrics,
    Document,
    Settings,
)
from picker.server.known_steps import tell_rows, unknown_rows
from picker.server.llmd_plugins import IGNORED_GATES, UNSUPPORTED_GATES
from picker.server.marked_yaml import MAX_BYTES, Marked, YamlError, read_yaml

__all__ = ["ConfigError", "PickerConfig", "load_config", "read_config"]

PRECISE = ("precise-prefix-cache-producer", "precise-prefix-cache-scorer")
DEFAULT_DETECTOR = "utilization-detector"


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """A usable configuration. `params` holds outside names and has been checked; `warnings` are for the log.

    `detector` and `detector_params` say when the pool is full. `testing`: the plugins for conformance suites that are
    on. `engine`: of endpoints whose labels do not say."""

    policy: str = DEFAULT_POLICY
    params: Mapping[str, object] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    warnings: tuple[str, ...] = ()
    testing: frozenset[str] = frozenset()
    detector: str = DEFAULT_DETECTOR
    detector_params: Mapping[str, object] = field(default_factory=dict)
    engine: EngineKind = "vllm"

    def make_policy(self, rng: np.random.Generator) -> Policy:
        """A fresh policy with its own state."""
        policy = REGISTRY[self.policy](self.params, rng)
        tell_rows(policy)
        return policy

    def admission(self) -> Admission:
        """Who is picked for while the pool is full."""
        return Admission(DETECTORS[self.detector](self.detector_params, np.random.default_rng(0)).saturation)

    def exchange_settings(self) -> ExchangeSettings:
        """What every conversation with the proxy is held to."""
        selection, served = (kind in self.testing for kind in TESTING)
        return ExchangeSettings(
            max_body_bytes=self.settings.max_body_bytes,
            detach=self.settings.response_path == "detach",
            selection_header=keys.TEST_SELECTION if selection else None,
            served_header=keys.TEST_SERVED if served else None,
            answer_header=token_header if config_profile.gives_tokens(self.params) else None,
        )


def load_config(path: Path | None) -> PickerConfig:
    """The configuration in this file, the default where there is no file. Raises ConfigError."""
    if path is None:
        return PickerConfig()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError((f"{path}: {error.strerror or error}",)) from error
    return read_config(raw, str(path))


def read_config(raw: bytes | str, file: str = "config") -> PickerConfig:
    """The configuration in this text; `file` is its name in messages. Raises ConfigError."""
    try:
        document = read_yaml(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))
    except YamlError as error:
        place = f"{file}:{error.line}:{error.column}" if error.line else file
        raise ConfigError((f"{place}: {error.message}",)) from error
    notes = Notes(file)
    top = notes.struct(Document, document)
    notes.stop_if_wrong()
    assert top is not None
    _header(notes, document, top)
    _gates(notes, document)
    plugins = declared(notes, items(document, "plugins"))
    config_sections.pass_over(notes, document, plugins)
    detector = config_sections.detector(notes, document, plugins)
    notes.stop_if_wrong()
    spared = frozenset() if detector is None else frozenset({detector.name})
    chosen = config_profile.profile(notes, document, plugins, spared)
    policy, params = config_profile.policy(notes, chosen)
    for problem in unknown_rows(params) if policy == "staged" else ():
        notes.wrong(chosen.of(POLICIES)[0].at, problem)
    settings = config_profile.settings(notes, plugins, chosen)
    _precise(notes, plugins, settings)
    testing = _testing(notes, plugins)
    notes.stop_if_wrong()
    return PickerConfig(
        policy,
        params,
        settings,
        tuple(notes.warnings),
        testing,
        DEFAULT_DETECTOR if detector is None else detector.type,
        {} if detector is None else detector.given,
        next(
            (plugin.params.default_engine for plugin in plugins.values() if isinstance(plugin.params, CoreMetrics)),
            "vllm",
        ),
    )


def _header(notes: Notes, document: Marked, top: Document) -> None:
    if top.api_version == OLD_API_VERSION:
        notes.warn(document.value["apiVersion"], f"{OLD_API_VERSION} is deprecated; say {API_VERSION}")
    elif top.api_version != API_VERSION:
        notes.wrong(document.value["apiVersion"], f"apiVersion must be {API_VERSION}")
    if top.kind != KIND:
        notes.wrong(document.value["kind"], f"kind must be {KIND}")


def _gates(notes: Notes, document: Marked) -> None:
    for gate in items(document, "featureGates"):
        if gate.value in UNSUPPORTED_GATES:
            notes.wrong(gate, unsupported(gate.value, UNSUPPORTED_GATES[gate.value]))
        elif gate.value in IGNORED_GATES:
            notes.warn(gate, f"feature gate {gate.value} has no meaning here")
        else:
            known = IGNORED_GATES | UNSUPPORTED_GATES.keys()
            notes.wrong(gate, f"unknown feature gate {quoted(gate.value)}{did_you_mean(gate.value, known)}")


def _precise(notes: Notes, plugins: Mapping[str, Declared], settings: Settings) -> None:
    """Whoever asks for the engines' own blocks must name the tokenizer; without it the prompt's text is matched."""
    for plugin in plugins.values():
        if plugin.type in PRECISE and not settings.models:
            notes.warn(
                plugin.at, f"{plugin.type} needs `models` in picker-settings: without, prefixes are matched as text"
            )


def _testing(notes: Notes, plugins: Mapping[str, Declared]) -> frozenset[str]:
    """Declared is on: the verifier is no part of a profile, and whoever declares the filter wants it."""
    found = [plugin for plugin in plugins.values() if plugin.type in TESTING]
    for plugin in found:
        notes.warn(plugin.at, f"{plugin.type} is for conformance tests only")
    return frozenset(plugin.type for plugin in found)
