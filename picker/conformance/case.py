"""A case: one rule of the contract, where the rule comes from, and a check that says what was seen instead."""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")
"""Who is checked: an EPP on the wire, or a gateway that asks one."""
Check = Callable[[S], Awaitable[None]]


class Broken(Exception):
    """The rule does not hold; the message says what was seen."""


class NotAsked(Exception):
    """The rule was not put to the test; the message says what was missing for it."""


class Verdict(enum.StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_ASKED = "not asked"


@dataclass(frozen=True, slots=True)
class Case(Generic[S]):
    """`name` is stable, for scripts. `source` is where the rule is written down."""

    pack: str
    name: str
    rule: str
    source: str
    check: Check[S]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case: `seen` is empty unless the verdict needs a reason. `took_s` in seconds."""

    pack: str
    name: str
    rule: str
    source: str
    verdict: Verdict
    seen: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Pack(Generic[S]):
    """Cases about one thing, in the order in which they were written."""

    name: str
    cases: list[Case[S]] = field(default_factory=list)

    def case(self, source: str) -> Callable[[Check[S]], Check[S]]:
        """Make a function a case: its name is the case's, its docstring the rule."""

        def add(check: Check[S]) -> Check[S]:
            self.add(check.__name__.replace("_", "-"), " ".join((check.__doc__ or "").split()), source, check)
            return check

        return add

    def add(self, name: str, rule: str, source: str, check: Check[S]) -> None:
        """A case out of its parts, for rules that differ in data alone."""
        self.cases.append(Case(self.name, name, rule, source, check))
