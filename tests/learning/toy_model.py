"""Models written by hand: a base of named terms, no trees unless given, trained everywhere."""

from collections.abc import Mapping

import numpy as np

from picker.engines.table import MAX_HARDWARE
from picker.learning.features import TPOT_TERMS, TREE_FEATURES, TTFT_TERMS, Matrix
from picker.learning.forest import NO_FOREST
from picker.learning.model import Correction, Model

TTFT: Mapping[str, float] = {"one": 20.0, "new_k": 50.0, "queued_k": 50.0}
TPOT: Mapping[str, float] = {"one": 8.0, "batch": 0.5, "context_m": 40.0}


def toy_model(
    ttft: Mapping[str, float] = TTFT,
    tpot: Mapping[str, float] = TPOT,
    corrections: Mapping[int, Correction] | None = None,
    version: int = 1,
) -> Model:
    """Coefficients in ms per unit of each term, 0 where not named, the same for every hardware class."""
    everywhere = np.full(len(TREE_FEATURES), np.float32(1e30))
    return Model(
        version,
        100,
        _base(TTFT_TERMS, ttft),
        _base(TPOT_TERMS, tpot),
        NO_FOREST,
        NO_FOREST,
        -everywhere,
        everywhere,
        corrections or {},
    )


def _base(names: tuple[str, ...], given: Mapping[str, float]) -> Matrix:
    assert set(given) <= set(names)
    return np.tile([given.get(name, 0.0) for name in names], (MAX_HARDWARE, 1))
