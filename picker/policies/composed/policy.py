"""Filters, then weighted scorers, then a picker: a scheduling profile of llm-d-router.

**Formula.** The filters leave endpoints out, in order; cost = -(sum of weight x score), each score in 0..1 and taken
over the endpoints that are left. `weighted-random-picker` draws in proportion to the sum, `random-picker` uniformly. A
profile of a configuration file that names any of these plugins is this policy:

| filter | keeps |
|---|---|
| `label-selector-filter` | those that `matchLabels` and `matchExpressions` select |
| `by-label` | those whose `label` is one of `validValues` (deprecated) |
| `decode-filter`, `prefill-filter`, `encode-filter` | those whose label `llm-d.ai/role` names that part |
| `prefix-cache-affinity-filter` | holders of 0.8 of the prompt's blocks, unless 18 s of prefill behind the others |
| `session-affinity-filter` | the session's endpoint |
| `utilization-detector` | those with at most 5 waiting and 0.8 of the KV cache used, or all |
| `concurrency-detector` | those with fewer than 100 own requests; 429 where there is none |

| scorer | score |
|---|---|
| `queue-scorer` | (most waiting - waiting) / (most - least), 1 where all are equal |
| `running-requests-size-scorer` | the same of running requests |
| `kv-cache-utilization-scorer` | 1 - KV usage |
| `load-aware-scorer` | 0.5 x (1 - min(waiting, threshold) / threshold); threshold 128 |
| `active-request-scorer` | (most - own) / most of own requests, times `maxBusyScore` (1); 1 up to `idleThreshold` (0) |
| `token-load-scorer` | 1 - min(1, (queued + new tokens) / `queueThresholdTokens`); 4,194,304 |
| `prefix-cache-scorer` | (1 - w) x held / all blocks + w x min(1, held tokens / `maxModelLen`)^2; w 0, length 8192 |
| `precise-prefix-cache-scorer` | held tokens, min-max scaled (deprecated) |
| `lora-affinity-scorer` | adapter running 1, place for one more 0.8, adapter waiting 0.6, else 0 |
| `no-hit-lru-scorer` | longest without a cold prompt 1, down to 0; 0.5 for all where a block is held |
| `session-affinity-scorer` | 1 for the session's endpoint, else 0 |

**Parameters.**

- `filters` (()): each `{type, name, parameters}`, or the type in a word.
- `scorers` (()): each `{type, name, parameters, weight}`, or `TYPE:WEIGHT` in a word; without any, all that the filters
  leave are alike.
- `picker` (max-score-picker): or `weighted-random-picker`, `random-picker`.

**Limits.** The good weights differ by workload and hour. The chance that is logged of a draw is that after the filters.
`llm-d-router` answers 429 where filters leave nobody; here labels that match nobody are a 503.

**Source.** llm-d-router v0.10.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, waiting=[4, 0, 1], kv_usage=[0.5, 0.5, 0.9], hit_tokens=[1600, 0, 800])
    >>> scorers = (Step("queue-scorer", weight=2), Step("prefix-cache-scorer", weight=3))
    >>> Composed(Params(scorers=scorers), np.random.default_rng(0)).score(request, rows, now=0.0).cost
    array([-3., -2., -3.])
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from picker.engines.metrics import LoraState
from picker.engines.rows import Column, Rows
from picker.policies.composed.look import Look, Meets, Members, Remembers, no_adapters
from picker.policies.composed.pickers import PICKERS
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.policies.policy import Member, Scores
from picker.requests.request import Request


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One plugin of the profile; `name` is what the decision log calls it, its type where empty."""

    type: Annotated[str, msgspec.Meta(max_length=100)]
    name: Annotated[str, msgspec.Meta(max_length=100)] = ""
    parameters: dict[str, Any] = {}
    weight: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 1.0


Word = Annotated[str, msgspec.Meta(max_length=120)]
Steps = Annotated[tuple[Step | Word, ...], msgspec.Meta(max_length=64)]
"""A plugin may be one word: its type, for a scorer as TYPE:WEIGHT too."""


class Params(msgspec.Struct, frozen=True, rename="camel"):
    filters: Steps = ()
    scorers: Steps = ()
    picker: Literal["max-score-picker", "random-picker", "weighted-random-picker"] = "max-score-picker"


class Composed:
    """Runs one profile. Raises ValueError for a plugin type that there is not, BadSettings for its parameters."""

    name = "composed"

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        filters, scorers = _steps(params.filters, FILTERS), _steps(params.scorers, SCORERS)
        self._filters = [(step.name or step.type, FILTERS[step.type](step.parameters, rng)) for step in filters]
        self._scorers = [
            (step.name or step.type, step.weight, SCORERS[step.type](step.parameters, rng)) for step in scorers
        ]
        plugins: list[object] = [*(keeps for _, keeps in self._filters), *(score for _, _, score in self._scorers)]
        self._meeting = [plugin for plugin in plugins if isinstance(plugin, Meets)]
        self._remembering = [plugin for plugin in plugins if isinstance(plugin, Remembers)]
        self._pick = PICKERS[params.picker]
        self._rng = rng
        self._members = Members()

    def meet(self, members: Mapping[int, Member], lora: Callable[[int], LoraState | None] = no_adapters) -> None:
        names = {name: slot for slot, member in members.items() for name in (member.name, member.address) if name}
        self._members = Members(members, names, lora)
        for plugin in self._meeting:
            plugin.meet(self._members)

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        look = Look(request, rows, now, self._members)
        left = np.arange(len(rows))
        reasons: dict[str, Column] = {}
        for name, keeps in self._filters:
            kept = np.flatnonzero(keeps(look)) if len(left) else left
            if len(kept) < len(left):
                left, look = left[kept], replace(look, rows=look.rows.take(kept))
            reasons[name] = _spread(np.ones(len(left)), left, len(rows))
        total = np.zeros(len(left))
        for name, weight, score in self._scorers:
            column = np.clip(score(look), 0.0, 1.0)
            total += weight * column
            reasons[name] = _spread(column, left, len(rows))
        cost, chance = self._pick(total, self._rng)
        return Scores(
            _spread(cost, left, len(rows), np.inf),
            reasons,
            None if chance is None else _spread(chance, left, len(rows)),
        )

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        for plugin in self._remembering:
            plugin.picked(Look(request, rows, now, self._members), row)


def _steps(given: Steps, known: Mapping[str, object]) -> list[Step]:
    steps = [_written_out(step) if isinstance(step, str) else step for step in given]
    for step in steps:
        if step.type not in known:
            raise ValueError(f"no plugin {step.type!r} here; there are: {', '.join(known)}")
    return steps


def _written_out(word: str) -> Step:
    kind, _, text = word.partition(":")
    weight = float(text or 1.0)
    if not 0.0 <= weight <= 1e6:
        raise ValueError(f"a weight in {word!r} out of 0..1e6")
    return Step(kind, weight=weight)


def _spread(values: Column, left: Any, n: int, elsewhere: float = 0.0) -> Column:
    """The values of the rows that are left among all `n` rows, shape (n,)."""
    if len(left) == n:
        return values
    column = np.full(n, elsewhere)
    column[left] = values
    return column
