"""A step model from what a router sees: how long tokens took, and what else was on the engine.

Two least squares with no coefficient below 0, on errors relative to what was measured, forgetting: time per token over
sequences, context and its unevenness, and prefill meanwhile; time to first token over prefill. What is seen of an
engine is its state at two moments of a long answer, so the fit is rough; a row of the table, where there is one, is
better. Where lengths have been alike for long, what unlike ones cost is forgotten.
"""

import math

import numpy as np
from numpy.typing import NDArray

from picker.stages.step_model import StepModel

ENOUGH = 100
"""Answers of which both times are known, before a model is made."""
_MEMORY = 10_000.0
_SWEEPS = 200


class _Line:
    """Non-negative least squares, row by row."""

    def __init__(self, size: int) -> None:
        self.rows = 0
        self._squares, self._products = np.zeros((size, size)), np.zeros(size)

    def learn(self, terms: tuple[float, ...], ms: float) -> None:
        if not ms > 0 or not all(0 <= term < math.inf for term in (*terms, ms)):
            return
        x = np.asarray(terms) / ms
        self._squares = (1.0 - 1.0 / _MEMORY) * self._squares + np.outer(x, x)
        self._products = (1.0 - 1.0 / _MEMORY) * self._products + x
        self.rows += 1

    def solve(self) -> NDArray[np.float64]:
        """Coordinate descent: each coefficient in turn as the others want it, but not below 0."""
        found = np.zeros(len(self._products))
        diagonal = np.diag(self._squares) * (1.0 + 1e-9)
        for _ in range(_SWEEPS):
            for i in range(len(found)):
                if diagonal[i] > 0:
                    rest = self._products[i] - self._squares[i] @ found + self._squares[i, i] * found[i]
                    found[i] = max(0.0, rest / diagonal[i])
        return found


class StepFit:
    """Of engines of one kind."""

    def __init__(self) -> None:
        self._decode, self._prefill = _Line(6), _Line(3)

    def decoded(
        self, tpot_ms: float, sequences: float, context: float, longest: float, tokens: float = 0.0, work: float = 0.0
    ) -> None:
        """Tokens of an answer came this far apart, in a batch of `sequences` with `context` tokens, `longest` of them
        in one, while so much was prefilled per token, in tokens and token pairs. What cannot be is left out."""
        uneven = max(0.0, sequences * longest - context)
        self._decode.learn((1.0, sequences, context / 1e6, uneven / 1e6, tokens, work / 1e6), tpot_ms)

    def prefilled(self, ttft_ms: float, tokens: float, work: float) -> None:
        """A first token came after so long, with so much to prefill until then, in tokens and in token pairs."""
        self._prefill.learn((1.0, tokens, work / 1e6), ttft_ms)

    def model(self, kv_tokens: float) -> StepModel | None:
        """None before enough was seen."""
        if min(self._decode.rows, self._prefill.rows) < ENOUGH:
            return None
        fixed, sequence, context, uneven, *_ = self._decode.solve().tolist()
        _, token, work = self._prefill.solve().tolist()
        return StepModel(
            fixed_ms=max(fixed, 0.1),
            decode_ms=sequence,
            context_ms=context,
            prefill_ms=token,
            work_ms=work,
            alpha=min(1.0, uneven / context) if context > 0 else 0.0,
            kv_tokens=max(0.0, kv_tokens),
        )
