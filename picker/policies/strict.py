"""Settings written by people, read strictly: a wrong name or value is an error that says what would have been right.

A settings type is a frozen `msgspec.Struct` with `rename="camel"`: Python names inside, YAML names outside, bounds in
`Annotated[..., msgspec.Meta(...)]`. Field by field conversion keeps the name of what was wrong.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo, fields

S = TypeVar("S", bound=msgspec.Struct)

MAX_UNKNOWN = 20
"""How many unknown fields one error names."""


class NoParams(msgspec.Struct, frozen=True):
    """Takes no parameters."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: `name` is the outside name of the field it is about, None where a field is missing."""

    name: str | None
    message: str


class BadSettings(ValueError):
    """Some fields are wrong; all of them are named."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


def read_strictly(kind: type[S], given: Mapping[str, object]) -> S:
    """`given` (outside names, plain YAML values) as a `kind`. Raises BadSettings with every problem found.

    >>> class Sticky(msgspec.Struct, frozen=True, rename="camel"):
    ...     affinity_threshold: float = 0.8
    >>> read_strictly(Sticky, {"affinityThreshold": 1})
    Sticky(affinity_threshold=1.0)
    >>> read_strictly(Sticky, {"afinityThreshold": 1})
    Traceback (most recent call last):
    picker.policies.strict.BadSettings: unknown field "afinityThreshold"; did you mean "affinityThreshold"?
    """
    known = {field.encode_name: field for field in fields(kind)}
    unknown = [name for name in given if name not in known]
    problems = [
        Problem(name, f"unknown field {quoted(name)}{did_you_mean(name, known)}") for name in unknown[:MAX_UNKNOWN]
    ]
    values: dict[str, object] = {}
    for name, field in known.items():
        if name not in given:
            if field.required:
                problems.append(Problem(None, f'missing field "{name}"'))
            continue
        try:
            values[field.name] = _value(field, given[name])
        except (ValueError, RecursionError) as error:
            problems.append(Problem(name, f'field "{name}": {error}'))
    if problems:
        raise BadSettings(tuple(problems))
    try:
        return kind(**values)
    except ValueError as error:
        raise BadSettings((Problem(None, str(error)),)) from error


def did_you_mean(name: str, known: Iterable[str], else_list: Iterable[str] | None = None) -> str:
    """The end of an error message: the nearest of `known`; where none is near, all of `else_list` or of `known`."""
    choices = sorted(known)
    # Similarity is quadratic in length: a name this long is no typing error.
    nearest = difflib.get_close_matches(name, choices, n=1, cutoff=0.5) if len(name) <= 100 else []
    if nearest:
        return f"; did you mean {quoted(nearest[0])}?"
    choices = sorted(else_list) if else_list is not None else choices
    return f"; known: {', '.join(choices)}" if choices else "; none is known"


def quoted(name: str) -> str:
    """A name from outside, fit for one line of a message."""
    escaped = name[:80].encode("unicode_escape").decode()
    return f'"{escaped}"'


def _value(field: FieldInfo, given: object) -> Any:
    try:
        value = msgspec.convert(given, field.type, strict=True)
    except msgspec.ValidationError as error:
        if get_origin(field.type) is Literal:
            choices = get_args(field.type)
            raise ValueError(f"expected one of {', '.join(map(str, choices))}") from error
        raise ValueError(_first_lower(str(error))) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:]
