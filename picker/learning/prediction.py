"""What is thought of N endpoints for one request, whether machine code or numpy thought it."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.learning.decision import CORRECTION, STEP_CORRECTION, TPOT, TTFT, Judgement
from picker.learning.features import Features, Matrix
from picker.learning.model import Estimate, Vector
from picker.learning.quickscorer import Float
from picker.learning.steps import HEAD_AT, TPOT_AT, TREES, TTFT_AT


class Foreseen(NamedTuple):
    """Of one endpoint: what its row of experience will hold, and what was expected, before corrections; nan where
    nothing was."""

    head_ms: float
    ttft_terms: Float
    tpot_terms: Float
    trees: Float
    log_ttft: float
    log_tpot: float
    correction: float
    """Of TTFT, log."""
    online: tuple[float, float] = (0.0, 0.0)
    """The say of the trees that learn row by row, part of the two."""


class Foresight(Protocol):
    def of(self, row: int) -> Foreseen: ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """By numpy: what is known and said of N endpoints."""

    known: Features
    said: Estimate | None
    """None without a model."""
    online: Vector
    """Shape (2, N), log: the say of the trees that learn row by row, part of `said`; 0 without them."""
    correction: Vector
    """Shape (2, N), log, a newcomer's head start included."""
    chance: Column
    """That a block evicted there is asked for again."""

    def of(self, row: int) -> Foreseen:
        known, said = self.known, self.said
        return Foreseen(
            float(known.head_ms[row]),
            known.ttft_terms[:, row].astype(np.float32),
            known.tpot_terms[:, row].astype(np.float32),
            known.trees[:, row].astype(np.float32),
            math.nan if said is None else float(said.log_ttft[row]),
            math.nan if said is None else float(said.log_tpot[row]),
            float(self.correction[0, row]),
            (float(self.online[0, row]), float(self.online[1, row])),
        )


class Compiled(msgspec.Struct, frozen=True, gc=False, eq=False):
    """By `kernel.judge_rows`."""

    columns: Matrix
    known: Float
    """Shape (blocks, KNOWN, LANES)."""

    def of(self, row: int) -> Foreseen:
        block, lane = divmod(row, self.known.shape[2])
        known = self.known[block, :, lane]
        column = self.columns[:, row].tolist()
        return Foreseen(
            float(known[HEAD_AT]),
            known[TTFT_AT:TPOT_AT],
            known[TPOT_AT:HEAD_AT],
            known[:TREES],
            math.log(column[TTFT]) - column[CORRECTION],
            math.log(column[TPOT]) - column[STEP_CORRECTION],
            column[CORRECTION],
        )


class Opinion(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Of a model, on N >= 1 endpoints."""

    judgement: Judgement
    foresight: Foresight
    best: int
    """The row of least cost."""
    unknown: bool
    """Whether the model would have to guess (`ranges.unknown_ground`)."""
    refusing: bool
    """Whether an endpoint's cache is too small for the prompt."""
    longest: int
    """The row that has been left out longest,"""
    left_out_s: float
    """and for how long; inf if it was never picked."""
