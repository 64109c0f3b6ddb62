"""The configuration file: an EndpointPickerConfig as llm-d-router reads it, with picker's policies as plugin types.

Pure: text in, `PickerConfig` out, or `ConfigError` with every problem as `file:line:column: message`. One scheme:

- `NAME-policy` is the policy NAME of docs/policies.md, with its parameters. A profile names one of them, or
- scorers of llm-d (queue-scorer, kv-cache-utilization-scorer, prefix-cache-scorer) with weights: the policy `weighted`.
- `max-score-picker` and `single-profile-handler` keep their meaning; `maxNumOfEndpoints` is the length of the list of
  destinations, 1 as in llm-d where the plugin is there and does not say.
- `picker-settings` carries, as parameters, what only picker has (`Settings`).

Where nothing is said the policy is `multiplicative`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from picker.exchange import keys
from picker.exchange.machine import ExchangeSettings
from picker.policies.policy import Policy
from picker.policies.registry import DEFAULT_POLICY, REGISTRY
from picker.policies.strict import BadSettings, did_you_mean, quoted, read_strictly
from picker.server.config_schema import (
    API_VERSION,
    KIND,
    OLD_API_VERSION,
    PARAMETERS,
    POLICIES,
    SCORERS,
    TESTING,
    Document,
    MaxScorePicker,
    PluginSpec,
    ProfileSpec,
    Reference,
    Settings,
)
from picker.server.llmd_plugins import IGNORED_GATES, UNSUPPORTED_FIELDS, UNSUPPORTED_GATES, UNSUPPORTED_PLUGINS
from picker.server.marked_yaml import MAX_BYTES, Marked, YamlError, read_yaml

S = TypeVar("S", bound=msgspec.Struct)


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are lines of `file:line:column: message`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """A usable configuration. `params` holds outside names and has been checked; `warnings` are for the log.

    `testing`: the plugins for conformance suites that are on."""

    policy: str = DEFAULT_POLICY
    params: Mapping[str, object] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    warnings: tuple[str, ...] = ()
    testing: frozenset[str] = frozenset()

    def make_policy(self, rng: np.random.Generator) -> Policy:
        """A fresh policy with its own state."""
        return REGISTRY[self.policy](self.params, rng)

    def exchange_settings(self) -> ExchangeSettings:
        """What every conversation with the proxy is held to."""
        selection, served = (kind in self.testing for kind in TESTING)
        return ExchangeSettings(
            max_body_bytes=self.settings.max_body_bytes,
            detach=self.settings.response_path == "detach",
            selection_header=keys.TEST_SELECTION if selection else None,
            served_header=keys.TEST_SERVED if served else None,
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
    return _Reading(file).config(document)


@dataclass(frozen=True, slots=True)
class _Plugin:
    """A declared plugin: `params` as read, `given` as written."""

    name: str
    type: str
    at: Marked
    params: msgspec.Struct
    given: Mapping[str, object]


class _Reading:
    """One reading of one document: collects problems and warnings on the way."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def config(self, document: Marked) -> PickerConfig:
        self._unsupported_fields(document)
        top = self._struct(Document, document, skip=UNSUPPORTED_FIELDS)
        if top is None:
            raise ConfigError(tuple(self._problems))
        self._header(document, top)
        self._gates(document)
        plugins = self._plugins(_items(document, "plugins"))
        self._stop_if_wrong()
        used, weights = self._profile(document, plugins)
        policy, params = self._policy(used, weights)
        settings = self._settings(plugins, used)
        testing = self._testing(plugins)
        self._stop_if_wrong()
        return PickerConfig(policy, params, settings, tuple(self._warnings), testing)

    def _header(self, document: Marked, top: Document) -> None:
        if top.api_version == OLD_API_VERSION:
            self._warn(document.value["apiVersion"], f"{OLD_API_VERSION} is deprecated; say {API_VERSION}")
        elif top.api_version != API_VERSION:
            self._wrong(document.value["apiVersion"], f"apiVersion must be {API_VERSION}")
        if top.kind != KIND:
            self._wrong(document.value["kind"], f"kind must be {KIND}")

    def _unsupported_fields(self, document: Marked) -> None:
        if isinstance(document.value, dict):
            for name in document.value:
                if name in UNSUPPORTED_FIELDS:
                    self._wrong_at(document.keys[name], _unsupported(name, UNSUPPORTED_FIELDS[name]))

    def _gates(self, document: Marked) -> None:
        for gate in _items(document, "featureGates"):
            if gate.value in UNSUPPORTED_GATES:
                self._wrong(gate, _unsupported(gate.value, UNSUPPORTED_GATES[gate.value]))
            elif gate.value in IGNORED_GATES:
                self._warn(gate, f"feature gate {gate.value} has no meaning here")
            else:
                known = IGNORED_GATES | UNSUPPORTED_GATES.keys()
                self._wrong(gate, f"unknown feature gate {quoted(gate.value)}{did_you_mean(gate.value, known)}")

    def _plugins(self, items: list[Marked]) -> dict[str, _Plugin]:
        plugins: dict[str, _Plugin] = {}
        for item in items:
            spec = self._struct(PluginSpec, item)
            if spec is None:
                continue
            name = spec.name or spec.type
            if name in plugins:
                self._wrong(item, f"plugin name {quoted(name)} is taken by line {plugins[name].at.line}")
            params = self._parameters(spec, item)
            if params is not None:
                plugins[name] = _Plugin(name, spec.type, item, params, spec.parameters or {})
        for kind in ("picker-settings", "max-score-picker", "single-profile-handler"):
            for extra in [plugin for plugin in plugins.values() if plugin.type == kind][1:]:
                self._wrong(extra.at, f"{kind} is declared twice")
        return plugins

    def _parameters(self, spec: PluginSpec, item: Marked) -> msgspec.Struct | None:
        kind = spec.type
        at = item.value["type"]
        if kind in UNSUPPORTED_PLUGINS:
            self._wrong(at, _unsupported(kind, UNSUPPORTED_PLUGINS[kind]))
            return None
        if kind not in PARAMETERS:
            near = did_you_mean(kind, PARAMETERS.keys() | UNSUPPORTED_PLUGINS.keys(), else_list=PARAMETERS)
            self._wrong(at, f"unknown plugin type {quoted(kind)}{near}")
            return None
        if spec.parameters is None:
            return PARAMETERS[kind]()
        given = item.value["parameters"]
        if kind == "prefix-cache-scorer":
            for name in given.value.keys() - {"prefixLengthWeight"}:
                self._warn_at(given.keys[name], f"{quoted(name)} has no meaning here: blocks are those of the engines")
        return self._struct(PARAMETERS[kind], given)

    def _profile(self, document: Marked, plugins: dict[str, _Plugin]) -> tuple[list[_Plugin], dict[str, float]]:
        """The plugins in use and the weights said for them, by plugin name. Without profiles, all are in use."""
        profiles = _items(document, "schedulingProfiles")
        if not profiles:
            return list(plugins.values()), {}
        for extra in profiles[1:]:
            self._wrong(extra, _unsupported("a second profile", "there is one profile"))
        profile = profiles[0]
        if self._struct(ProfileSpec, profile) is None:
            return [], {}
        used: dict[str, _Plugin] = {}
        weights: dict[str, float] = {}
        for item in _items(profile, "plugins"):
            reference = self._struct(Reference, item)
            if reference is None:
                continue
            name, at = reference.plugin_ref, item.value["pluginRef"]
            if name not in plugins:
                self._wrong(at, f"no plugin is named {quoted(name)}{did_you_mean(name, plugins)}")
            elif name in used:
                self._wrong(at, f"{quoted(name)} is named twice in this profile")
            else:
                used[name] = plugins[name]
                if reference.weight is not None:
                    weights[name] = reference.weight
                    if plugins[name].type not in SCORERS:
                        self._warn(
                            item.value["weight"], f"weight of {quoted(name)} has no meaning: only scorers are weighed"
                        )
        for plugin in plugins.values():
            if plugin.name not in used and (plugin.type in POLICIES or plugin.type in SCORERS):
                self._warn(plugin.at, f"plugin {quoted(plugin.name)} is not used")
        return list(used.values()), weights

    def _policy(self, used: list[_Plugin], weights: Mapping[str, float]) -> tuple[str, Mapping[str, object]]:
        policies = [plugin for plugin in used if plugin.type in POLICIES]
        scorers = [plugin for plugin in used if plugin.type in SCORERS]
        for extra in policies[1:]:
            self._wrong(extra.at, f"one policy decides: {quoted(policies[0].name)} is in use already")
        if policies:
            for scorer in scorers:
                self._wrong(
                    scorer.at,
                    f"scorer {quoted(scorer.name)} beside policy {quoted(policies[0].name)}: use one or the other",
                )
            return POLICIES[policies[0].type], policies[0].given
        if not scorers:
            return DEFAULT_POLICY, {}
        total = dict.fromkeys(SCORERS.values(), 0.0)
        for scorer in scorers:
            total[SCORERS[scorer.type]] += weights.get(scorer.name, 1.0)
        if not any(total.values()):
            self._wrong(scorers[0].at, "every scorer has weight 0")
        return "weighted", total

    def _settings(self, plugins: dict[str, _Plugin], used: list[_Plugin]) -> Settings:
        settings, said = Settings(), False
        for plugin in plugins.values():
            if isinstance(plugin.params, Settings):
                settings, said = plugin.params, "destinations" in plugin.given
        for plugin in used:
            if isinstance(plugin.params, MaxScorePicker):
                if said and "maxNumOfEndpoints" in plugin.given:
                    self._wrong(
                        plugin.at, "maxNumOfEndpoints and destinations of picker-settings say the same: keep one"
                    )
                elif not said:
                    settings = msgspec.structs.replace(settings, destinations=plugin.params.max_num_of_endpoints)
        return settings

    def _testing(self, plugins: Mapping[str, _Plugin]) -> frozenset[str]:
        """Declared is on: the verifier is no part of a profile, and whoever declares the filter wants it."""
        found = [plugin for plugin in plugins.values() if plugin.type in TESTING]
        for plugin in found:
            self._warn(plugin.at, f"{plugin.type} is for conformance tests only")
        return frozenset(plugin.type for plugin in found)

    def _struct(self, kind: type[S], item: Marked, skip: Mapping[str, object] | None = None) -> S | None:
        """`item` as a `kind`, or None after saying what is wrong. Fields in `skip` were judged already."""
        if not isinstance(item.value, dict):
            self._wrong(item, "expected a mapping")
            return None
        try:
            return read_strictly(kind, {k: v for k, v in item.plain.items() if not skip or k not in skip})
        except BadSettings as bad:
            for problem in bad.problems:
                at = item.keys[problem.name] if problem.name is not None else (item.line, item.column)
                self._wrong_at(at, problem.message)
            return None

    def _stop_if_wrong(self) -> None:
        if self._problems:
            raise ConfigError(tuple(self._problems))

    def _wrong(self, at: Marked, message: str) -> None:
        self._wrong_at((at.line, at.column), message)

    def _wrong_at(self, at: tuple[int, int], message: str) -> None:
        self._problems.append(f"{self._file}:{at[0]}:{at[1]}: {message}")

    def _warn(self, at: Marked, message: str) -> None:
        self._warn_at((at.line, at.column), message)

    def _warn_at(self, at: tuple[int, int], message: str) -> None:
        self._warnings.append(f"{self._file}:{at[0]}:{at[1]}: {message}")


def _items(item: Marked, name: str) -> list[Marked]:
    found = item.value.get(name)
    return found.value if found is not None else []


def _unsupported(name: str, why: str) -> str:
    return f"{name} is known to llm-d-router, not supported here: {why}"
