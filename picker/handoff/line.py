"""The line of prompts before an engine: how long a newcomer would stand in it.

What a prompt takes is what the step model says, times how wrong that was lately: the time from one first token to the
next while somebody waited, over what those prompts were said to take. So prefix caches, decodes in between and slower
engines are in the number without being seen. Prompts begin in the order in which they came.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from picker.stages.agent_state import prefill_ms, step_ms
from picker.stages.lengths import CHUNK_TOKENS
from picker.stages.step_model import StepModel

_MEMORY_MS = 30_000.0
"""Of time in which somebody waited."""
_TRUST_MS = 500.0
"""So much such time must show otherwise before half of it is believed."""
_WRONG = 20.0
_UNSURE = 0.1
"""Of a prompt's time: so much is taken to be left of it, at least."""
_BYTES_PER_TOKEN = 4.0
_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class _Prompt:
    tokens: float | None
    size: int


class Line:
    """Of one engine. Times in seconds on any one clock; `who` tells the prompts apart."""

    def __init__(self) -> None:
        self._prompts: dict[Hashable, _Prompt] = {}
        self._model: StepModel | None = None
        self._step_ms = 0.0
        self._taken_ms = self._said_ms = _TRUST_MS
        self._bytes_per_token = _BYTES_PER_TOKEN
        self._usual_tokens = 0.0
        self._since = 0.0
        """When the first in line became the first."""

    def __len__(self) -> int:
        return len(self._prompts)

    def price(self, model: StepModel, decoding: Sequence[float]) -> None:
        """What steps take from now on, beside requests of these contexts."""
        self._model, self._step_ms = model, step_ms(model, decoding)

    def join(self, who: Hashable, now: float, *, size: int = 0, tokens: float | None = None) -> None:
        """A prompt came, of so many tokens, or where nobody knows, of a body of so many bytes."""
        if not self._prompts:
            self._since = now
        self._prompts[who] = _Prompt(tokens, size)

    def begin(self, who: Hashable, now: float, tokens: int = 0) -> None:
        """Its first token came; its prompt had so many, if that is known now. Nothing for who does not wait."""
        prompt = self._prompts.pop(who, None)
        if prompt is None:
            return
        taken_ms, self._since = 1e3 * max(0.0, now - self._since), now
        if prompt.tokens is None and tokens > 0:
            self._bytes_per_token += _WEIGHT * (prompt.size / tokens - self._bytes_per_token)
        length = tokens if prompt.tokens is None and tokens > 0 else self._length(prompt)
        self._usual_tokens += (_WEIGHT if self._usual_tokens else 1.0) * (length - self._usual_tokens)
        if self._model is not None:
            keep = math.exp(-taken_ms / _MEMORY_MS)
            self._taken_ms = keep * self._taken_ms + taken_ms
            self._said_ms = keep * self._said_ms + self._ms(length)

    def leave(self, who: Hashable, now: float) -> None:
        """It waits no more, and never began: nothing is learned of that."""
        if next(iter(self._prompts), None) == who:
            self._since = now
        self._prompts.pop(who, None)

    def wait_ms(self, now: float, others: float = 0.0) -> float:
        """Until all that wait have begun, and as many `others` of the usual length. 0 before steps have a price.

        The first is under way. If it is late, it is taken to be late by as much again.
        """
        if self._model is None:
            return 0.0
        each = [self.wrong * self._ms(self._length(prompt)) for prompt in self._prompts.values()]
        if each:
            each[0] = max(_UNSURE * each[0], abs(each[0] - 1e3 * (now - self._since)))
        return sum(each) + max(0.0, others) * self.wrong * self._ms(self._usual_tokens)

    @property
    def wrong(self) -> float:
        """What prompts take over what the step model says."""
        return min(_WRONG, max(1.0 / _WRONG, self._taken_ms / self._said_ms))

    def _length(self, prompt: _Prompt) -> float:
        return prompt.size / max(self._bytes_per_token, 0.25) if prompt.tokens is None else prompt.tokens

    def _ms(self, tokens: float) -> float:
        """By the step model alone: a step for each chunk, and the prefill in it."""
        if self._model is None:
            return 0.0
        return max(1, math.ceil(tokens / CHUNK_TOKENS)) * self._step_ms + prefill_ms(self._model, tokens, tokens)
