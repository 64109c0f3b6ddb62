"""From experience to a model: the base first, then trees on what it misses, then each endpoint's own residual."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from picker.engines.table import MAX_HARDWARE
from picker.learning.base import fit_base
from picker.learning.experience import Experience
from picker.learning.features import ANYWHERE, FROM_NOTHING, TREE_FEATURES, Features, Matrix
from picker.learning.forest import NO_FOREST, Forest, fit_forest, predict
from picker.learning.model import (
    TPOT_BOUND,
    TTFT_BOUND,
    Correction,
    Estimate,
    Model,
    Vector,
    base_tpot,
    base_ttft,
    estimate,
)
from picker.learning.whole import split, split_at_first

LEAST_ROWS = 30
"""Fewer rows than these give no model."""
LEAST_TREE_ROWS = 200
"""Fewer give a model without trees: the base needs no more to be useful, trees do."""
TPOT_TREES = 30
"""At most; of TPOT the base leaves little that trees could find."""
_ANYWHERE, _FROM_NOTHING = np.isin(TREE_FEATURES, ANYWHERE), np.isin(TREE_FEATURES, FROM_NOTHING)
_FAR = 1e30
_LAST_ROWS = 20
_FORGET = 0.88


@dataclass(frozen=True, slots=True)
class Parts:
    """What a model is made of; each can be left out, to see what it is worth."""

    base: bool = True
    trees: bool = True
    corrections: bool = True
    tree_count: int = 50
    leaves: int = 15
    """More trees or leaves predict no better (docs/learning.md), and cost each pick."""


def train(rows: Experience, version: int, parts: Parts = Parts()) -> Model | None:
    """A model of these rows, sane ones in order of their ends; None for fewer than LEAST_ROWS of them.

    Without the base, trees stand on the mean log latency alone. Its trees are believed whole; `picker.learning.rounds`
    asks first how far they should be.
    """
    model = fitted(rows, version, parts)
    return model if model is None or not parts.corrections else corrected(model, rows)


def fitted(rows: Experience, version: int, parts: Parts) -> Model | None:
    """The same without corrections of endpoints."""
    if len(rows) < LEAST_ROWS:
        return None
    hardware = rows["hardware"].astype(np.intp)
    known = _features(rows)
    came = split_at_first(rows, known)
    timed = ~np.isnan(came.log_tpot)
    if np.count_nonzero(timed) < LEAST_ROWS:
        return None
    ttft, tpot = np.exp(came.log_ttft), np.exp(came.log_tpot[timed])
    if parts.base:
        ttft_base = fit_base(known.ttft_terms.T, ttft + known.head_ms, hardware)
        tpot_base = fit_base(known.tpot_terms.T[timed], tpot, hardware[timed])
    else:
        ttft_base, tpot_base = _constant(known.ttft_terms, ttft), _constant(known.tpot_terms, tpot)
    features = known.trees.T.astype(np.float32)
    least = np.where(_FROM_NOTHING, 0.0, features.min(axis=0))
    lowest = np.where(_ANYWHERE, -_FAR, least).astype(np.float32)
    highest = np.where(_ANYWHERE, _FAR, features.max(axis=0)).astype(np.float32)
    model = Model(version, len(rows), ttft_base, tpot_base, NO_FOREST, NO_FOREST, lowest, highest)
    miss, slow = missed_by_base(model, rows)
    return replace(
        model,
        ttft_trees=_trees(features, np.clip(miss, -2, 2), parts, parts.tree_count),
        tpot_trees=_trees(features[timed], np.clip(slow[timed], -1, 1), parts, min(parts.tree_count, TPOT_TREES)),
    )


def scaled(model: Model, ttft_share: float, tpot_share: float) -> Model:
    """The same, its trees saying only such a share of what they would."""

    def less(trees: Forest, share: float) -> Forest:
        return trees if share == 1 else replace(trees, leaves=trees.leaves * np.float32(share)) if share else NO_FOREST

    return replace(model, ttft_trees=less(model.ttft_trees, ttft_share), tpot_trees=less(model.tpot_trees, tpot_share))


def corrected(model: Model, rows: Experience) -> Model:
    """The same, with what each endpoint's last rows say beyond it."""
    left, corrections = residuals(model, rows), {}
    for endpoint in np.unique(rows["endpoint"]).tolist():
        last = np.flatnonzero(rows["endpoint"] == endpoint)[-_LAST_ROWS:]
        corrections[endpoint] = Correction(recent_mean(left[0, last]), recent_mean(left[1, last]), len(last))
    return replace(model, corrections=corrections)


def said_by_trees(model: Model, rows: Experience) -> NDArray[np.float64]:
    """What trees add to the log of TTFT and of TPOT, (2, rows)."""
    features = _features(rows).trees.astype(np.float32)
    ttft = np.clip(predict(model.ttft_trees, features), -TTFT_BOUND, TTFT_BOUND)
    return np.array((ttft, np.clip(predict(model.tpot_trees, features), -TPOT_BOUND, TPOT_BOUND)))


def missed_by_base(model: Model, rows: Experience) -> NDArray[np.float64]:
    """What the base alone misses of log TTFT and log TPOT, (2, rows); nan where unknown."""
    known, hardware = _features(rows), rows["hardware"].astype(np.intp)
    ttft = np.log(base_ttft(model.ttft_base, known.ttft_terms, known.head_ms, hardware))
    tpot = np.log(base_tpot(model.tpot_base, known.tpot_terms, hardware))
    return _beyond(rows, Estimate(ttft, tpot))


def errors(model: Model, rows: Experience) -> NDArray[np.float64]:
    """|log error| of the TTFT of each row, (rows,), with the corrections that the model brings."""
    said = estimate_rows(model, rows)
    own = np.array(
        [model.corrections[e].log_ttft if e in model.corrections else 0.0 for e in rows["endpoint"].tolist()]
    )
    found: NDArray[np.float64] = np.abs(_beyond(rows, said)[0] - own)
    return found


def residuals(model: Model, rows: Experience) -> NDArray[np.float64]:
    """What the shared model misses of each row, (2, rows): log TTFT, and log TPOT, nan where unknown."""
    return _beyond(rows, estimate_rows(model, rows))


def _beyond(rows: Experience, said: Estimate) -> NDArray[np.float64]:
    came = split(rows, said)
    return np.array((came.log_ttft - said.log_ttft, came.log_tpot - said.log_tpot))


def estimate_rows(model: Model, rows: Experience) -> Estimate:
    """The model's word on rows of experience instead of endpoints."""
    return estimate(model, _features(rows), rows["hardware"].astype(np.intp))


def _features(rows: Experience) -> Features:
    def feature_major(name: str) -> Matrix:
        return np.ascontiguousarray(rows[name].T, np.float64)

    return Features(
        feature_major("ttft_terms"),
        feature_major("tpot_terms"),
        rows["head_ms"].astype(np.float64),
        feature_major("features"),
    )


def _constant(terms: Matrix, target_ms: Vector) -> Matrix:
    """No base: every row is expected to take the geometric mean; the first term is one everywhere."""
    base = np.zeros((MAX_HARDWARE, len(terms)))
    base[:, 0] = np.exp(np.log(target_ms).mean())
    return base


def _trees(features: NDArray[np.float32], target: Vector, parts: Parts, count: int) -> Forest:
    if not parts.trees or len(features) < LEAST_TREE_ROWS:
        return NO_FOREST
    return fit_forest(features, target, trees=count, leaves=parts.leaves)


def recent_mean(values: NDArray[np.float64]) -> float:
    """Mean that forgets: the last value weighs most. nan where nothing is known."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan")
    weight = _FORGET ** np.arange(len(values))[::-1]
    return float((values * weight).sum() / weight.sum())
