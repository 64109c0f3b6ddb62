"""Gradient boosting, left to LightGBM. Imported by those who train only: a picker has no use for the library."""

from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

LEAST_ROWS_OF_A_LEAF = 20


def boosted(
    features: NDArray[np.float32],
    target: NDArray[Any],
    weight: NDArray[Any] | None,
    *,
    trees: int,
    leaves: int,
    seed: int,
) -> lightgbm.Booster:
    """At most `trees` trees whose sum is the prediction. features: (rows, F), target and weight: (rows,), all finite.

    One thread and no choice left to timing: equal arguments give equal trees. Huber's loss bears single absurd
    latencies; 63 bins a feature cost 0.002 of log error and spare a fifth of the time.
    """
    settings = {
        "objective": "huber",
        "alpha": 0.5,
        "learning_rate": 0.1,
        "num_leaves": leaves,
        "min_data_in_leaf": LEAST_ROWS_OF_A_LEAF,
        "lambda_l2": 2.0,
        "max_bin": 63,
        "use_missing": False,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    rows = lightgbm.Dataset(features, target, weight=weight, params=settings)
    return lightgbm.train(settings, rows, num_boost_round=trees)
