"""A schema as flat fields: what it demands at each path, without prose; the form of `upstream.yaml`."""

from collections.abc import Iterator, Mapping
from typing import Any

PROSE = ("description", "properties", "items", "additionalProperties")
ENVELOPE = ("apiVersion", "kind", "metadata")
Fields = dict[str, dict[str, Any]]


def fields_of(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, what is demanded there) of every field but apiVersion, kind and metadata."""
    yield path, {word: value for word, value in schema.items() if word not in PROSE}
    for name, inner in schema.get("properties", {}).items():
        if path or name not in ENVELOPE:
            yield from fields_of(inner, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from fields_of(schema["items"], f"{path}[]")
    if isinstance(inner := schema.get("additionalProperties"), Mapping):
        yield from fields_of(inner, f"{path}{{}}")


def expanded(fields: Mapping[str, Any], parts: Mapping[str, Any]) -> Fields:
    """The record's fields with its parts put in where they are named."""
    result: Fields = {}
    for path, demanded in fields.items():
        if isinstance(demanded, str):
            prefix = "" if path == "." else path
            for inner, what in expanded(parts[demanded.strip("()")], parts).items():
                result[".".join(filter(None, (prefix, inner)))] = what
        else:
            result[path] = demanded
    return result
