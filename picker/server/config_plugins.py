"""The plugins that a configuration declares."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from picker.policies.strict import did_you_mean, quoted
from picker.server.config_notes import Notes, needless, unsupported
from picker.server.config_schema import PARAMETERS, PluginSpec
from picker.server.llmd_plugins import (
    DEPRECATED,
    NEEDLESS_PARAMETERS,
    NEEDLESS_PLUGINS,
    ONLY_VALUES,
    RENAMED,
    UNSUPPORTED_PLUGINS,
    refusal,
)
from picker.server.marked_yaml import Marked

ONCE = ("picker-settings", "single-profile-handler", "core-metrics-extractor")


@dataclass(frozen=True, slots=True)
class Declared:
    """One plugin: `params` as read, `given` as written less what does nothing. A needless one has no `params`."""

    name: str
    type: str
    at: Marked
    params: msgspec.Struct | None
    given: Mapping[str, object]

    @property
    def needless(self) -> bool:
        return self.params is None


def declared(notes: Notes, listed: list[Marked]) -> dict[str, Declared]:
    """By name. Whatever is wrong or odd goes to `notes`."""
    found: dict[str, Declared] = {}
    for item in listed:
        spec = notes.struct(PluginSpec, item)
        if spec is None:
            continue
        name = spec.name or spec.type
        if name in found:
            notes.wrong(item, f"plugin name {quoted(name)} is taken by line {found[name].at.line}")
        plugin = _plugin(notes, spec, name, item)
        if plugin is not None:
            found[name] = plugin
    for kind in ONCE:
        for extra in [plugin for plugin in found.values() if plugin.type == kind][1:]:
            notes.wrong(extra.at, f"{kind} is declared twice")
    return found


def _plugin(notes: Notes, spec: PluginSpec, name: str, item: Marked) -> Declared | None:
    at, kind = item.value["type"], RENAMED.get(spec.type, spec.type)
    if (why := refusal(kind)) is not None:
        notes.wrong(at, unsupported(kind, why))
        return None
    if kind not in PARAMETERS and kind not in NEEDLESS_PLUGINS:
        known = PARAMETERS.keys() | NEEDLESS_PLUGINS.keys() | UNSUPPORTED_PLUGINS.keys()
        notes.wrong(
            at, f"unknown plugin type {quoted(spec.type)}{did_you_mean(spec.type, known, else_list=PARAMETERS)}"
        )
        return None
    if spec.type in RENAMED:
        notes.warn(at, f"{spec.type} is deprecated; say {kind}")
    if kind in DEPRECATED:
        notes.warn(at, f"{kind} is deprecated; say {DEPRECATED[kind]}")
    given = item.value.get("parameters") if spec.parameters is not None else None
    if kind in NEEDLESS_PLUGINS:
        notes.warn(at, needless(kind, NEEDLESS_PLUGINS[kind]))
        _only_values(notes, kind, given)
        return Declared(name, kind, item, None, {})
    if given is None:
        return _without_parameters(notes, kind, name, item)
    skip = {key: why for key, why in NEEDLESS_PARAMETERS.get(kind, {}).items() if key in given.value}
    for key, why in skip.items():
        notes.warn(given.keys[key], needless(quoted(key), why))
    params = notes.struct(PARAMETERS[kind], given, skip)
    rest = {key: value for key, value in given.plain.items() if key not in skip}
    return None if params is None else Declared(name, kind, item, params, rest)


def _without_parameters(notes: Notes, kind: str, name: str, item: Marked) -> Declared | None:
    """All parameters at their defaults, or what is missing, said at the plugin itself."""
    empty = Marked({}, item.line, item.column)
    params = notes.struct(PARAMETERS[kind], empty)
    return None if params is None else Declared(name, kind, item, params, {})


def _only_values(notes: Notes, kind: str, given: Marked | None) -> None:
    if given is None:
        return
    for key, (only, why) in ONLY_VALUES.get(kind, {}).items():
        if key in given.value and given.value[key].plain != only:
            notes.wrong(given.keys[key], f"{kind} cannot have another {quoted(key)} than {json.dumps(only)}: {why}")
