"""The scheduling profile: which policy it makes, of which plugins."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from picker.policies.composed.pickers import PICKERS
from picker.policies.composed.plugins import DETECTORS, FILTERS, SCORERS
from picker.policies.registry import DEFAULT_POLICY
from picker.policies.strict import did_you_mean, quoted
from picker.server.config_notes import Notes, items, unsupported
from picker.server.config_plugins import Declared
from picker.server.config_schema import POLICIES, Picker, ProfileSpec, Reference, Settings
from picker.server.marked_yaml import Marked

SESSIONS = ("session-affinity-filter", "session-affinity-scorer")
LLMD = FILTERS.keys() | SCORERS.keys() | PICKERS.keys()
DECIDING = LLMD | POLICIES.keys()


@dataclass(frozen=True, slots=True)
class Profile:
    """The plugins in use, in their order, and the weights that were said, by plugin name."""

    used: list[Declared]
    weights: Mapping[str, float] = field(default_factory=dict)

    def of(self, kinds: Container[str]) -> list[Declared]:
        """Those of these types."""
        return [plugin for plugin in self.used if plugin.type in kinds]


def profile(notes: Notes, document: Marked, plugins: Mapping[str, Declared], spared: frozenset[str]) -> Profile:
    """What the one profile names; without one, all plugins but detectors. Unused ones are odd, unless `spared`."""
    listed = items(document, "schedulingProfiles")
    if not listed:
        return Profile([plugin for plugin in plugins.values() if plugin.type not in DETECTORS])
    for extra in listed[1:]:
        notes.wrong(extra, unsupported("a second profile", "there is one profile"))
    if notes.struct(ProfileSpec, listed[0]) is None:
        return Profile([])
    used: dict[str, Declared] = {}
    weights: dict[str, float] = {}
    for item in items(listed[0], "plugins"):
        reference = notes.struct(Reference, item)
        if reference is None:
            continue
        name, at = reference.plugin_ref, item.value["pluginRef"]
        if name not in plugins:
            notes.wrong(at, f"no plugin is named {quoted(name)}{did_you_mean(name, plugins)}")
        elif name in used:
            notes.wrong(at, f"{quoted(name)} is named twice in this profile")
        else:
            used[name] = plugins[name]
            if reference.weight is not None:
                weights[name] = reference.weight
                if plugins[name].type not in SCORERS:
                    notes.warn(
                        item.value["weight"], f"weight of {quoted(name)} has no meaning: only scorers are weighed"
                    )
    for plugin in plugins.values():
        if plugin.name not in used and plugin.name not in spared and plugin.type in DECIDING:
            notes.warn(plugin.at, f"plugin {quoted(plugin.name)} is not used")
    return Profile(list(used.values()), weights)


def policy(notes: Notes, chosen: Profile) -> tuple[str, Mapping[str, object]]:
    """Name and parameters of the policy that these plugins make."""
    policies, pickers = chosen.of(POLICIES), chosen.of(PICKERS)
    for extra in policies[1:]:
        notes.wrong(extra.at, f"one policy decides: {quoted(policies[0].name)} is in use already")
    for extra in pickers[1:]:
        notes.wrong(extra.at, f"one picker picks: {quoted(pickers[0].name)} is in use already")
    filters, scorers = chosen.of(FILTERS), chosen.of(SCORERS)
    draws = [plugin for plugin in pickers if plugin.type != "max-score-picker"]
    if policies:
        for plugin in (*filters, *scorers, *draws):
            notes.wrong(
                plugin.at, f"{quoted(plugin.name)} beside policy {quoted(policies[0].name)}: use one or the other"
            )
        return POLICIES[policies[0].type], policies[0].given
    if not filters and not scorers and not draws:
        return DEFAULT_POLICY, {}
    weights = [chosen.weights.get(plugin.name, 1.0) for plugin in scorers]
    if scorers and not any(weights):
        notes.wrong(scorers[0].at, "every scorer has weight 0")
    steps = [{**_step(plugin), "weight": weight} for plugin, weight in zip(scorers, weights, strict=True)]
    return "composed", {
        "filters": [_step(plugin) for plugin in filters],
        "scorers": steps,
        "picker": pickers[0].type if pickers else "max-score-picker",
    }


def _step(plugin: Declared) -> dict[str, object]:
    return {"type": plugin.type, "name": plugin.name, "parameters": dict(plugin.given)}


def gives_tokens(params: Mapping[str, Any]) -> bool:
    """Whether these parameters of `composed` bring sessions back by tokens, which answers must then carry."""
    steps = [*params.get("filters", ()), *params.get("scorers", ())]
    ways = [{"algorithm": None, "strategy": None, **step["parameters"]} for step in steps if step["type"] in SESSIONS]
    return any({way["algorithm"], way["strategy"]} <= {None, "encoded_endpoint_header"} for way in ways)


def settings(notes: Notes, plugins: Mapping[str, Declared], chosen: Profile) -> Settings:
    """The parameters of picker-settings; `maxNumOfEndpoints` of a picker is the length of the list of destinations.

    A profile of llm-d-router that does not say means one: its proxy may understand no list.
    """
    found, said = Settings(), False
    for plugin in plugins.values():
        if isinstance(plugin.params, Settings):
            found, said = plugin.params, "destinations" in plugin.given
    if said or not chosen.of(LLMD):
        for plugin in chosen.of(PICKERS):
            if "maxNumOfEndpoints" in plugin.given:
                notes.wrong(plugin.at, "maxNumOfEndpoints and destinations of picker-settings say the same: keep one")
        return found
    lengths = [plugin.params.max_num_of_endpoints for plugin in chosen.used if isinstance(plugin.params, Picker)]
    return msgspec.structs.replace(found, destinations=lengths[0] if lengths else 1)
