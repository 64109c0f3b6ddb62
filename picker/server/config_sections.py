"""The sections of a configuration beside plugins and profiles: data layer, parsers, flow control.

Of what they say only the saturation detector has a meaning here; the rest is passed over or refused by name.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from picker.policies.composed.plugins import DETECTORS
from picker.policies.strict import did_you_mean, quoted
from picker.server.config_notes import Notes, items, needless, unsupported
from picker.server.config_plugins import Declared
from picker.server.config_schema import DataLayer, DataSource, FlowControl, PlainReference, RequestHandler
from picker.server.llmd_plugins import UNSUPPORTED_FIELDS
from picker.server.marked_yaml import Marked

R = TypeVar("R", PlainReference, DataSource)

WATCHED = "engines are watched without configuration"
BY_PATH = "every API is recognised by its path, and bodies on other paths are not read"


def pass_over(notes: Notes, document: Marked, plugins: Mapping[str, Declared]) -> None:
    """Read the sections that change nothing."""
    for name in ("dataLayer", "data"):
        section = _section(notes, document, name, DataLayer)
        for source in items(section, "sources") if section else []:
            _named(notes, source, plugins, DataSource)
            for extractor in items(source, "extractors") if isinstance(source.value, dict) else []:
                _named(notes, extractor, plugins, PlainReference)
        if section:
            notes.warn(document.keys[name], needless(name, WATCHED))
    section = _section(notes, document, "requestHandler", RequestHandler)
    for parser in [*(items(section, "parsers") if section else []), *_given(document, "parser")]:
        _named(notes, parser, plugins, PlainReference)
    for name in ("requestHandler", "parser"):
        if name in document.value:
            notes.warn(document.keys[name], needless(name, BY_PATH))


def detector(notes: Notes, document: Marked, plugins: Mapping[str, Declared]) -> Declared | None:
    """The plugin that says when the pool is full, None where the file does not."""
    section = _section(notes, document, "flowControl", FlowControl)
    if "saturationDetector" in document.value:
        notes.warn(document.keys["saturationDetector"], "saturationDetector is deprecated; say it under flowControl")
    said = [*(_given(section, "saturationDetector") if section else []), *_given(document, "saturationDetector")]
    for extra in said[1:]:
        notes.wrong(extra, "the saturation detector is said twice")
    plugin = _named(notes, said[0], plugins, PlainReference) if said else None
    if plugin is not None and plugin.type not in DETECTORS:
        notes.wrong(said[0], f"{quoted(plugin.name)} is no saturation detector; known: {', '.join(DETECTORS)}")
    return plugin


def _section(notes: Notes, document: Marked, name: str, kind: type[msgspec.Struct]) -> Marked | None:
    """The section, after a look at its fields; None where it is absent or wrong."""
    section: Marked | None = document.value.get(name)
    if section is None or section.value is None:
        return None
    refused = UNSUPPORTED_FIELDS[name]
    for field in section.value:
        if field in refused:
            notes.wrong(section.keys[field], unsupported(f"{name}.{field}", refused[field]))
    return section if notes.struct(kind, section, refused) is not None else None


def _given(section: Marked, name: str) -> list[Marked]:
    found = section.value.get(name)
    return [] if found is None or found.value is None else [found]


def _named(notes: Notes, item: Marked, plugins: Mapping[str, Declared], kind: type[R]) -> Declared | None:
    """The plugin that a reference names, or None after saying that there is none."""
    reference = notes.struct(kind, item)
    if reference is None:
        return None
    if reference.plugin_ref not in plugins:
        near = did_you_mean(reference.plugin_ref, plugins)
        notes.wrong(item.value["pluginRef"], f"no plugin is named {quoted(reference.plugin_ref)}{near}")
        return None
    return plugins[reference.plugin_ref]
