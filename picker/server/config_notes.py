"""What is wrong with a configuration, and what is odd about it, each with its place."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from picker.policies.strict import BadSettings, read_strictly
from picker.server.marked_yaml import Marked

S = TypeVar("S", bound=msgspec.Struct)
Place = Marked | tuple[int, int]


class ConfigError(Exception):
    """The configuration cannot be used. `problems` are lines of `file:line:column: message`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Notes:
    """Problems and warnings of one reading, as `file:line:column: message`."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def wrong(self, at: Place, message: str) -> None:
        self.problems.append(self._line(at, message))

    def warn(self, at: Place, message: str) -> None:
        self.warnings.append(self._line(at, message))

    def stop_if_wrong(self) -> None:
        """Raises ConfigError with all problems so far, if there are any."""
        if self.problems:
            raise ConfigError(tuple(self.problems))

    def struct(self, kind: type[S], item: Marked, skip: Mapping[str, object] | None = None) -> S | None:
        """`item` as a `kind`, or None after saying what is wrong. Fields in `skip` were judged already."""
        if not isinstance(item.value, dict):
            self.wrong(item, "expected a mapping")
            return None
        try:
            return read_strictly(kind, {k: v for k, v in item.plain.items() if not skip or k not in skip})
        except BadSettings as bad:
            for problem in bad.problems:
                self.wrong(item.keys[problem.name] if problem.name is not None else item, problem.message)
            return None

    def _line(self, at: Place, message: str) -> str:
        line, column = (at.line, at.column) if isinstance(at, Marked) else at
        return f"{self._file}:{line}:{column}: {message}"


def items(item: Marked, name: str) -> list[Marked]:
    """The items of a list field, none where it is absent or is no list."""
    found = item.value.get(name)
    return found.value if found is not None and isinstance(found.value, list) else []


def unsupported(name: str, why: str) -> str:
    """What is said of a thing that only llm-d-router does."""
    return f"{name} is known to llm-d-router, not supported here: {why}"


def needless(name: str, why: str) -> str:
    """What is said of a thing that is passed over."""
    return f"{name} has no meaning here: {why}"
