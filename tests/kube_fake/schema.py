"""Structural schemas of custom resources: default, prune, validate, CEL rules.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cel_expr_python import cel

from .errors import Cause

Schema = Mapping[str, Any]
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}
BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "maxLength": ("Too long", lambda value, limit: len(value) <= limit),
    "minLength": ("Too short", lambda value, limit: len(value) >= limit),
    "maxItems": ("Too many", lambda value, limit: len(value) <= limit),
    "minItems": ("Too few", lambda value, limit: len(value) >= limit),
    "maxProperties": ("Too many", lambda value, limit: len(value) <= limit),
    "minProperties": ("Too few", lambda value, limit: len(value) >= limit),
    "maximum": ("Too large", lambda value, limit: value <= limit),
    "minimum": ("Too small", lambda value, limit: value >= limit),
}
ENVELOPE = ("apiVersion", "kind", "metadata")


class BadRule(ValueError):
    """A CEL rule that cannot be compiled here."""


def with_defaults(value: Any, schema: Schema) -> Any:
    """A copy with the schema's defaults where fields are missing; a null with a default is missing."""
    if isinstance(value, dict):
        result = dict(value)
        properties = schema.get("properties", {})
        for name, inner in properties.items():
            if "default" in inner and result.get(name) is None:
                result[name] = inner["default"]
            if name in result:
                result[name] = with_defaults(result[name], inner)
        if isinstance(extra := schema.get("additionalProperties"), dict):
            result.update({name: with_defaults(each, extra) for name, each in result.items() if name not in properties})
        return result
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(each, schema["items"]) for each in value]
    return value


def pruned(value: Any, schema: Schema, path: str = "") -> tuple[Any, list[str]]:
    """A copy without fields that the schema does not know, and the paths of those."""
    unknown: list[str] = []
    if isinstance(value, dict):
        result = {}
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties")
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or extra is True
        for name, each in value.items():
            at = f"{path}.{name}" if path else name
            if not path and name in ENVELOPE:
                result[name] = each
            elif name in properties or isinstance(extra, dict):
                result[name], lost = pruned(each, properties.get(name, extra), at)
                unknown += lost
            elif open_ended:
                result[name] = each
            else:
                unknown.append(at)
        return result, unknown
    if isinstance(value, list) and "items" in schema:
        pairs = [pruned(each, schema["items"], f"{path}[{index}]") for index, each in enumerate(value)]
        return [each for each, _ in pairs], [name for _, lost in pairs for name in lost]
    return value, unknown


def violations(value: Any, schema: Schema, old: Any = None) -> list[Cause]:
    """What is wrong with an object. CEL rules are judged only where types and limits hold, as a server does it."""
    wrong = list(_structure(value, schema, ""))
    return wrong or list(_rules(value, schema, "", old))


def check_rules(schema: Schema, path: str = "") -> list[Cause]:
    """What is wrong with the CEL rules of a schema."""
    wrong = []
    for rule in schema.get("x-kubernetes-validations", ()):
        try:
            _compiled(rule["rule"])
        except BadRule as error:
            wrong.append(Cause(path, "FieldValueInvalid", str(error)))
    for name, inner in schema.get("properties", {}).items():
        wrong += check_rules(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(inner := schema.get(name), dict):
            wrong += check_rules(inner, f"{path}[]")
    return wrong


def _structure(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if value is None:
        if not schema.get("nullable"):
            yield Cause(path, "FieldValueTypeInvalid", f"Invalid value: null, must be of type {schema.get('type')}")
        return
    if not _has_type(value, schema):
        yield Cause(path, "FieldValueTypeInvalid", f"Invalid value: must be of type {schema.get('type')}")
        return
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(f'"{each}"' for each in schema["enum"])
        yield Cause(path, "FieldValueNotSupported", f'Unsupported value: "{value}": supported values: {supported}')
    for word, (complaint, holds) in BOUNDS.items():
        if word in schema and not holds(value, schema[word]):
            yield Cause(path, "FieldValueInvalid", f"{complaint}: {word} is {schema[word]}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield Cause(path, "FieldValueInvalid", f"Invalid value: \"{value}\": should match '{schema['pattern']}'")
    if not _has_format(value, schema.get("format")):
        yield Cause(path, "FieldValueInvalid", f"Invalid value: {value!r}: must be of format {schema['format']}")
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield Cause(_join(path, name), "FieldValueRequired", "Required value")
    if isinstance(value, list):
        yield from _duplicates(value, schema, path)
    for inner, each, at in _children(value, schema, path):
        yield from _structure(each, inner, at)


def _rules(value: Any, schema: Schema, path: str, old: Any) -> Iterator[Cause]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        outcome = _compiled(rule["rule"]).eval(data={"self": value, "oldSelf": old})
        if outcome.value() is not True:
            yield Cause(
                path, "FieldValueInvalid", f"Invalid value: {rule.get('message') or 'failed rule: ' + rule['rule']}"
            )
    for inner, each, at in _children(value, schema, path):
        before = old.get(at.rpartition(".")[2]) if isinstance(old, dict) else None
        yield from _rules(each, inner, at, before)


def _children(value: Any, schema: Schema, path: str) -> Iterator[tuple[Schema, Any, str]]:
    """The parts of a value that have a schema of their own, with their paths."""
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for name, each in value.items():
            inner = schema.get("properties", {}).get(name, extra)
            if isinstance(inner, dict) and (path or name not in ENVELOPE):
                yield inner, each, _join(path, name)
    elif isinstance(value, list) and "items" in schema:
        for index, each in enumerate(value):
            yield schema["items"], each, f"{path}[{index}]"


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if schema.get("x-kubernetes-list-type") not in ("map", "set"):
        return
    seen = []
    for index, each in enumerate(value):
        identity = tuple(each.get(key) for key in keys) if keys and isinstance(each, dict) else each
        if identity in seen:
            yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {identity}")
        seen.append(identity)


def _has_type(value: Any, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    wanted = schema.get("type")
    if wanted == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return wanted is None or isinstance(value, TYPES[wanted])


def _has_format(value: Any, name: str | None) -> bool:
    if name in ("int32", "int64"):
        limit = 1 << int(name[3:]) - 1
        return bool(-limit <= value < limit)
    if name == "date-time":
        try:
            return datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            return False
    return True


@functools.cache
def _compiled(rule: str) -> cel.Expression:
    try:
        return _environment().compile(rule)
    except Exception as error:
        raise BadRule(f"{rule}: {error}") from None


@functools.cache
def _environment() -> cel.Env:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN})


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
