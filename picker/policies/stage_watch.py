"""What the policy `staged` sees of its own picks: how long requests are, what steps cost, how many are where."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from picker.engines.rows import Rows
from picker.engines.table import MAX_HARDWARE
from picker.learning.lengths import OutputLengths
from picker.policies.policy import Facts
from picker.requests.request import Request
from picker.stages.fit import StepFit
from picker.stages.lengths import Lengths
from picker.stages.promise import Promise
from picker.stages.step_model import StepModel

MOST_KINDS = 8
_ABSURD_TOKENS = 1e9


@dataclass(slots=True)
class _Flight:
    request: Request
    slot: int
    hardware: int
    new_tokens: float
    work: float
    era: int
    place: float | None
    queued_tokens: float
    queued_work: float
    """Of all that is prefilled before its first token, its own included."""
    decoding: tuple[float, float, float] | None = None
    """When its first token came: sequences decoding there, their context, the longest of them."""
    prefilled: tuple[float, float] = (0.0, 0.0)
    """What had been prefilled there until then, in tokens and token pairs."""


class Watch:
    """Flights are those of the router, which ends each of them."""

    def __init__(self) -> None:
        self.lengths, self.outputs, self.promise = Lengths(), OutputLengths(), Promise()
        self._fits = [StepFit() for _ in range(MAX_HARDWARE)]
        self._flights: dict[int, _Flight] = {}
        self._on: dict[int, dict[int, _Flight]] = {}
        self._prefilled: dict[int, tuple[float, float]] = {}
        self._hardware = np.zeros(1, np.intp)
        self._kv_tokens = np.zeros(1)

    def ensure(self, capacity: int) -> None:
        """Slots below `capacity` may come."""
        more = capacity - len(self._hardware)
        if more > 0:
            self._hardware = np.concatenate((self._hardware, np.zeros(more, np.intp)))
            self._kv_tokens = np.concatenate((self._kv_tokens, np.zeros(more)))

    def placed(self, flight: int, request: Request, rows: Rows, row: int, place: float | None) -> None:
        """Row `row` was chosen; `place` is the length that the request stays with, None for one that moves on."""
        self.ensure(int(rows.slots.max()) + 1)
        self._hardware[rows.slots], self._kv_tokens[rows.slots] = rows.hardware, rows.kv_tokens
        new = float(rows.new_tokens[row])
        work = new * max(0.0, request.prompt_tokens - new / 2)
        entry = _Flight(
            request,
            int(rows.slots[row]),
            int(rows.hardware[row]),
            new,
            work,
            self.promise.era,
            place,
            float(rows.queued_tokens[row]) + new,
            float(rows.queued_work[row]) + work,
        )
        self._flights[flight] = entry
        self._on.setdefault(entry.slot, {})[flight] = entry

    def first_byte(self, flight: int, ttft_s: float) -> None:
        """Its first token came."""
        entry = self._flights.get(flight)
        if entry is None or entry.decoding is not None:
            return
        self._fits[entry.hardware].prefilled(ttft_s * 1e3, entry.queued_tokens, entry.queued_work)
        tokens, work = self._prefilled.get(entry.slot, (0.0, 0.0))
        self._prefilled[entry.slot] = entry.prefilled = tokens + entry.new_tokens, work + entry.work
        entry.decoding = 1.0, 0.0, 0.0
        entry.decoding = self._batch(entry.slot)

    def ended(self, flight: int, facts: Facts | None) -> None:
        """It is over; None where another endpoint served."""
        entry = self._flights.pop(flight, None)
        if entry is None:
            return
        after = self._batch(entry.slot)
        self._on.get(entry.slot, {}).pop(flight, None)
        if facts is None or facts.status != 200 or facts.completion_tokens is None:
            return
        output = min(float(max(0, facts.completion_tokens)), _ABSURD_TOKENS)
        self.outputs.learn(entry.request, output)
        self.lengths.add(entry.request.prompt_tokens, entry.new_tokens, output, entry.place)
        if facts.ttft_s is not None and output == 1:
            self.promise.ended(entry.era, facts.ttft_s * 1e3, output)
        if entry.decoding is not None and facts.ttft_s is not None and facts.tpot_s is not None and output > 1:
            self.promise.ended(entry.era, (facts.ttft_s + facts.tpot_s * (output - 1)) * 1e3, output)
            sequences, context, longest = ((one + two) / 2 for one, two in zip(entry.decoding, after, strict=True))
            grown = output / 2
            meanwhile = self._prefilled.get(entry.slot, entry.prefilled)
            self._fits[entry.hardware].decoded(
                facts.tpot_s * 1e3,
                sequences,
                context + sequences * grown,
                longest + grown,
                (meanwhile[0] - entry.prefilled[0]) / output,
                (meanwhile[1] - entry.prefilled[1]) / output,
            )

    def _batch(self, slot: int) -> tuple[float, float, float]:
        """Sequences decoding there, the tokens of their prompts, the longest of these."""
        prompts = [one.request.prompt_tokens for one in self._on.get(slot, {}).values() if one.decoding is not None]
        return float(len(prompts)), sum(prompts), max(prompts, default=0.0)

    def left(self, slot: int) -> None:
        """Another endpoint may take the slot; what still runs there is nobody's load."""
        self._prefilled.pop(slot, None)
        for flight in self._on.pop(slot, {}):
            del self._flights[flight]

    @property
    def requests(self) -> int:
        """Own requests in the pool."""
        return len(self._flights)

    def requests_on(self, slot: int) -> int:
        """Own requests there."""
        return len(self._on.get(slot, ()))

    def models(self, slots: Mapping[int, str], known: Mapping[str, StepModel]) -> dict[int, StepModel | None]:
        """A step model per slot, given the names of their hardware: the one known by that name, else one fitted to its
        class, None where too little was seen. KV sizes that are not known are the scraped ones, rounded down by up to a
        fifth, and where that leaves more than MOST_KINDS, to the least of the class: a plan's time grows with the kinds
        of engine."""
        fits = deepcopy(self._fits)
        whole = {name for name, model in known.items() if model.kv_tokens}
        kinds = {
            slot: (name if name in known else int(self._hardware[slot]), _rounded(float(self._kv_tokens[slot])))
            for slot, name in slots.items()
            if name not in whole and slot < len(self._hardware)
        }
        if len(set(kinds.values())) > MOST_KINDS:
            # Sorted so that the least known size comes last, and counts.
            least = dict(sorted(kinds.values(), key=lambda kind: -kind[1] if kind[1] else -math.inf))
            kinds = {slot: (hardware, least[hardware]) for slot, (hardware, _) in kinds.items()}
        models = {
            kind: replace(known[kind[0]], kv_tokens=kind[1])
            if isinstance(kind[0], str)
            else fits[kind[0]].model(kind[1])
            for kind in set(kinds.values())
        }
        return {slot: models[kinds[slot]] if slot in kinds else known.get(name) for slot, name in slots.items()}

    def classes(self, slots: Mapping[int, object]) -> dict[int, int]:
        """Class of hardware of each slot, as seen in the rows."""
        return {slot: int(self._hardware[slot]) if slot < len(self._hardware) else 0 for slot in slots}


def _rounded(tokens: float) -> float:
    """0, for unknown, where this is no size of a KV cache."""
    return 2.0 ** (math.floor(4 * math.log2(tokens)) / 4) if 1 <= tokens < _ABSURD_TOKENS else 0.0
