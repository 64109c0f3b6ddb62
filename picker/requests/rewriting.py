"""Which model to ask the engine for, by rules: the first that names the client's model, else the first for all models;
its target is drawn by weight."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Protocol


class Target(Protocol):
    """A model, and its share among the targets of its rule."""

    @property
    def model(self) -> str: ...
    @property
    def weight(self) -> int: ...


class Rule(Protocol):
    """For the clients' `models`, or for all where it names none. Weights are >= 0 and sum to more than 0."""

    @property
    def models(self) -> frozenset[str]: ...
    @property
    def targets(self) -> Sequence[Target]: ...


class Rewriting:
    """Rules in their order of precedence. `draw` gives numbers in [0, 1)."""

    def __init__(self, rules: Iterable[Rule] = (), draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._named: dict[str, _Shares] = {}
        self._others: _Shares | None = None
        for rule in rules:
            shares = _Shares(rule.targets)
            for model in rule.models:
                self._named.setdefault(model, shares)
            if not rule.models and self._others is None:
                self._others = shares

    def target(self, model: str) -> str:
        """The model to ask for instead of `model` (empty where the client named none); empty where no rule applies."""
        shares = self._named.get(model, self._others)
        return "" if shares is None else shares.at(self._draw())


class _Shares:
    def __init__(self, targets: Sequence[Target]) -> None:
        self._models = [target.model for target in targets]
        self._bounds = list(accumulate(target.weight for target in targets))

    def at(self, place: float) -> str:
        """The target whose share covers `place`, in [0, 1)."""
        return self._models[bisect_right(self._bounds, place * self._bounds[-1])]
