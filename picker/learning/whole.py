"""Answers that came whole: their time is the first token's and all others' together, and has to be taken apart.

An answer that is not streamed shows one time, E = TTFT + (n - 1) TPOT for n tokens. Where a model is at hand, E is
split as it says the parts are to each other: then both miss by the same factor. Before there is one, the two bases are
fitted to all answers at once, which tells the parts apart as far as answers differ in length.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picker.learning.base import fit_base
from picker.learning.experience import Experience
from picker.learning.features import TTFT_TERMS, Features, Matrix
from picker.learning.model import LEAST_MS, Estimate, Vector, base_tpot, base_ttft


def split(rows: Experience, said: Estimate) -> Estimate:
    """Log TTFT and log TPOT that the rows came to, each (rows,), TPOT nan where unknown; whole answers by what was
    `said` of them."""
    came = _measured(rows)
    whole = rows["whole"] == 1
    if whole.any():
        more = rows["output_tokens"][whole].astype(np.float64) - 1.0
        first, later = said.log_ttft[whole], said.log_tpot[whole]
        missed = came.log_ttft[whole] - log_together(first, later, more)
        came.log_ttft[whole] = first + missed
        came.log_tpot[whole] = np.where(more > 0, later + missed, np.nan)
    return came


def log_together(log_ttft: ArrayLike, log_tpot: ArrayLike, more: ArrayLike) -> Vector:
    """Log of the time of a first token and so many `more`."""
    together: Vector = np.log(np.exp(log_ttft) + np.multiply(more, np.exp(log_tpot)))
    return together


def split_at_first(rows: Experience, known: Features) -> Estimate:
    """The same before any model is there; `known` are the rows'."""
    return split(rows, _guess(rows, known)) if rows["whole"].any() else _measured(rows)


def _guess(rows: Experience, known: Features) -> Estimate:
    """What bases that are fitted to all answers at once say of the rows."""
    hardware = rows["hardware"].astype(np.intp)
    whole, timed = rows["whole"] == 1, ~np.isnan(rows["tpot_ms"])
    more = np.where(whole, np.maximum(rows["output_tokens"].astype(np.float64) - 1.0, 0.0), 0.0)
    firsts = np.hstack((known.ttft_terms.T, known.tpot_terms.T * more[:, None]))
    steps = np.hstack((np.zeros_like(known.ttft_terms.T), known.tpot_terms.T))[timed]
    target = np.concatenate((_ms(rows["ttft_ms"]) + known.head_ms, _ms(rows["tpot_ms"][timed])))
    both: Matrix = fit_base(np.vstack((firsts, steps)), target, np.concatenate((hardware, hardware[timed])))
    ttft = base_ttft(both[:, : len(TTFT_TERMS)], known.ttft_terms, known.head_ms, hardware)
    return Estimate(np.log(ttft), np.log(base_tpot(both[:, len(TTFT_TERMS) :], known.tpot_terms, hardware)))


def _measured(rows: Experience) -> Estimate:
    return Estimate(np.log(_ms(rows["ttft_ms"])), np.log(_ms(rows["tpot_ms"])))


def _ms(column: NDArray[np.float32]) -> Vector:
    return np.maximum(column.astype(np.float64), LEAST_MS)
