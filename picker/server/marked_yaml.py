"""One YAML document as plain values that remember where they stand.

Only what JSON can say is read: mappings with string keys, lists, strings, numbers, booleans, null. Aliases, merge keys,
tags, repeated keys and several documents are refused, so that what is written is what is meant and nothing grows on
reading.
"""

from dataclasses import dataclass, field
from typing import Any

import yaml

from picker.policies.strict import quoted

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}


class YamlError(Exception):
    """Unreadable text. `line` and `column` count from 1; 0 where the text as a whole is meant."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Marked:
    """A value at a place: a scalar, a list of Marked, or a dict of str to Marked, whose keys `keys` places."""

    value: Any
    line: int
    column: int
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def plain(self) -> Any:
        """The value without places, as deep as it goes."""
        if isinstance(self.value, dict):
            return {key: item.plain for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain for item in self.value]
        return self.value


def read_yaml(raw: bytes) -> Marked:
    """The one document in `raw`, at most 256 KiB of UTF-8. Raises YamlError."""
    if len(raw) > MAX_BYTES:
        raise YamlError(f"larger than {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(f"not UTF-8 at byte {error.start}") from error
    try:
        node = _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise YamlError(f"character U+{ord(text[error.position]):04X} is not allowed", line, column) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(error.problem or "not YAML", *_place(mark) if mark else ()) from error
    except ValueError as error:
        # PyYAML lets an escape beyond Unicode through to chr().
        raise YamlError("an escape names no character") from error
    if node is None:
        raise YamlError("empty: no document")
    return _marked(node)


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases and depth before they cost anything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise self._refusal("aliases are not allowed")
        if self._depth >= MAX_DEPTH:
            raise self._refusal(f"nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refusal(self, why: str) -> yaml.MarkedYAMLError:
        events: Any = self
        return yaml.composer.ComposerError(None, None, why, events.peek_event().start_mark)


def _marked(node: yaml.Node) -> Marked:
    line, column = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return Marked([_marked(item) for item in node.value], line, column)
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        return Marked(_scalar(node), line, column)
    raise YamlError(f"tag {quoted(node.tag.removeprefix(_TAG))} is not allowed", line, column)


def _mapping(node: yaml.MappingNode) -> Marked:
    values: dict[str, Marked] = {}
    keys: dict[str, tuple[int, int]] = {}
    for key_node, value_node in node.value:
        place = _place(key_node.start_mark)
        if key_node.tag == f"{_TAG}merge":
            raise YamlError("merge keys are not allowed", *place)
        key = _marked(key_node).value
        if not isinstance(key, str):
            raise YamlError("a key must be a string", *place)
        if key in values:
            raise YamlError(f"{quoted(key)} is said twice, first in line {keys[key][0]}", *place)
        values[key], keys[key] = _marked(value_node), place
    return Marked(values, *_place(node.start_mark), keys)


def _scalar(node: yaml.ScalarNode) -> object:
    kind = node.tag.removeprefix(_TAG)
    if kind in ("str", "timestamp"):
        if not node.value.isascii() and any("\ud800" <= char <= "\udfff" for char in node.value):
            raise YamlError("an escape names no character", *_place(node.start_mark))
        return node.value
    constructor = yaml.constructor.SafeConstructor()
    construct = {
        "int": constructor.construct_yaml_int,
        "float": constructor.construct_yaml_float,
        "bool": constructor.construct_yaml_bool,
        "null": constructor.construct_yaml_null,
    }[kind]
    try:
        return construct(node)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise YamlError(f"not a valid {kind}", *_place(node.start_mark)) from error


def _place(mark: Any) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1
