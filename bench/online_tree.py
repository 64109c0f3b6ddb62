"""River's trees beside LightGBM's on rows of a simulated run: `python -m bench.online_tree [--trace T] [--pool P]`.

A run under `multiplicative` is watched, and the base fitted to its first 500 rows. Then each predictor says what the
base misses of every later row (log TTFT) before it learns it: River's row by row, LightGBM's anew after every 500 rows.
`--without-base` leaves all of a TTFT but its mean to them.
"""

import argparse
import pickle
import statistics
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from river.forest import ARFRegressor

from bench.figures import load_average, quantile
from picker.learning.experience import EXPERIENCE, Experience, sane
from picker.learning.features import features
from picker.learning.forest import NO_FOREST, Forest, fit_forest, predict, warm
from picker.learning.online_tree import OnlineTrees
from picker.learning.pressure import Pressure
from picker.learning.training import Parts, estimate_rows, train
from picker.policies.registry import REGISTRY
from picker.routing.decisions import Decision
from picker.simulator.cluster import Cluster
from picker.simulator.pool_spec import parse_pool
from picker.simulator.replay_run import Setting

STEP = 500
Matrix = NDArray[np.floating]


class Notes:
    """A row of experience of every request that came to its end."""

    def __init__(self) -> None:
        self.rows: list[Experience] = []
        self._pressure = Pressure()
        self._under_way: dict[int, Experience] = {}

    def picked(self, decision: Decision) -> None:
        rows, chosen, prompt = decision.rows, decision.chosen, decision.request.prompt_tokens
        self._pressure.ensure(int(rows.slots.max()) + 1)
        known = features(rows, prompt, self._pressure.prefill_rate(rows.slots, decision.at))
        slot, new, cache = int(rows.slots[chosen]), float(rows.new_tokens[chosen]), float(rows.kv_tokens[chosen])
        self._pressure.placed(slot, new, 0.0, cache, decision.at)
        row = np.zeros(1, EXPERIENCE)
        row["at_s"], row["endpoint"], row["hardware"] = decision.at, slot, rows.hardware[chosen]
        row["propensity"], row["head_ms"] = decision.propensity, known.head_ms[chosen]
        row["ttft_terms"], row["tpot_terms"] = known.ttft_terms[:, chosen], known.tpot_terms[:, chosen]
        row["features"] = known.trees[:, chosen]
        self._under_way[decision.flight] = row

    def ended(self, decision: Decision) -> None:
        row, came = self._under_way.pop(decision.flight), decision.outcome
        if came.status == 200 and came.ttft_s is not None:
            row["ttft_ms"] = 1e3 * came.ttft_s
            row["tpot_ms"] = np.nan if came.tpot_s is None else 1e3 * came.tpot_s
            self.rows.append(row)


def experience(trace: str, pool: str, scale: float, limit: int) -> Experience:
    """Rows of one run under the rule, in order of their ends."""
    setting, notes = Setting(trace, pool, limit=limit), Notes()
    engines = parse_pool(pool, setting.types())
    cluster = Cluster(engines, lambda rng: REGISTRY["multiplicative"]({}, rng), watchers=[notes])
    cluster.run(setting.workload(0, limit).faster(scale))
    rows = np.concatenate(notes.rows)
    return rows[sane(rows)]


class Predictor(Protocol):
    """Learns log residuals of TTFT. features: (F,) of a row, (F, N) of N endpoints."""

    def learn(self, features: Matrix, residual: float) -> None: ...
    def predict(self, features: Matrix) -> Matrix: ...


class BaseAlone:
    def learn(self, features: Matrix, residual: float) -> None: ...

    def predict(self, features: Matrix) -> Matrix:
        return np.zeros(features.shape[1])


class Boosted:
    """LightGBM's trees, grown anew after every STEP rows from all of them."""

    def __init__(self) -> None:
        self.forest: Forest = NO_FOREST
        self.rows: list[Matrix] = []
        self.residuals: list[float] = []

    def learn(self, features: Matrix, residual: float) -> None:
        self.rows.append(features)
        self.residuals.append(residual)
        if len(self.rows) % STEP == 0:
            self.forest = fit_forest(np.array(self.rows, np.float32), np.array(self.residuals))

    def predict(self, features: Matrix) -> Matrix:
        return predict(self.forest, features.astype(np.float32))

    def __getstate__(self) -> object:
        """What a picker holds: the rows are the trainer's."""
        return self.forest


class Online:
    """The tree that picker has."""

    def __init__(self) -> None:
        self.trees = OnlineTrees()

    def learn(self, features: Matrix, residual: float) -> None:
        self.trees.learn(features, residual, float("nan"))

    def predict(self, features: Matrix) -> Matrix:
        ttft: Matrix = self.trees.predict(features)[0]
        return ttft


class AdaptiveForest:
    """River's adaptive random forest of three."""

    def __init__(self) -> None:
        self.trees = ARFRegressor(n_models=3, seed=0)

    def learn(self, features: Matrix, residual: float) -> None:
        self.trees.learn_one(dict(enumerate(features.tolist())), residual)

    def predict(self, features: Matrix) -> Matrix:
        return np.array([self.trees.predict_one(dict(enumerate(row))) for row in features.T.tolist()])


PREDICTORS: dict[str, type[Predictor]] = {
    "base alone": BaseAlone,
    "LightGBM, every 500 rows": Boosted,
    "River, adaptive tree": Online,
    "River, forest of 3": AdaptiveForest,
}


@dataclass(frozen=True, slots=True)
class Report:
    """Mean |log error| from the first to the last row and over the second half; microseconds of CPU."""

    error: float
    late_error: float
    learn_us: list[float]
    predict_64_us: float
    kilobytes: float
    """Pickled, at the end."""


def prequential(predictor: Predictor, features: Matrix, residual: Matrix) -> Report:
    """Each row past the first STEP is predicted, then learned. features: (rows, F)."""
    clock = time.thread_time_ns
    errors, learn_us, predict_us = [], [], []
    for i, (row, missed) in enumerate(zip(features, residual.tolist(), strict=True)):
        if i >= STEP:
            errors.append(abs(missed - float(predictor.predict(row[:, None])[0])))
        start = clock()
        predictor.learn(row, missed)
        learn_us.append((clock() - start) / 1000)
    pools = [features[at : at + 64].T for at in range(0, len(features) - 64, max(1, len(features) // 40))]
    for pool in pools:
        start = clock()
        predictor.predict(pool)
        predict_us.append((clock() - start) / 1000)
    return Report(
        statistics.fmean(errors),
        statistics.fmean(errors[len(errors) // 2 :]),
        learn_us,
        statistics.median(predict_us),
        len(pickle.dumps(predictor)) / 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", default="gen:shared?groups=25&share=0.5&rate=20&requests=8000")
    parser.add_argument("--pool", default="a100_sxm/llama-3-8b tp1:4,l40s/llama-3-8b tp1:4")
    parser.add_argument("--time-scale", type=float, default=1.0)
    parser.add_argument("--limit", type=int, default=8000)
    parser.add_argument("--without-base", action="store_true")
    given = parser.parse_args()
    warm()
    rows = experience(given.trace, given.pool, given.time_scale, given.limit)
    base = train(rows[:STEP], 1, Parts(base=not given.without_base, trees=False, corrections=False))
    if base is None:
        raise SystemExit("too few rows")
    residual = np.clip(np.log(rows["ttft_ms"].astype(np.float64)) - estimate_rows(base, rows).log_ttft, -2, 2)
    print(f"{len(rows)} rows, load average {load_average()}")
    print(f"{'':<26}{'error':>8}{'late':>8}{'learn us':>10}{'mean':>8}{'p99.9':>9}{'predict 64':>12}{'kB':>8}")
    for name, predictor in PREDICTORS.items():
        found = prequential(predictor(), rows["features"], residual)
        learn = (statistics.median(found.learn_us), statistics.fmean(found.learn_us), quantile(found.learn_us, 0.999))
        print(
            f"{name:<26}{found.error:>8.4f}{found.late_error:>8.4f}{learn[0]:>10.1f}{learn[1]:>8.0f}{learn[2]:>9.0f}"
            f"{found.predict_64_us:>12.0f}{found.kilobytes:>8.0f}"
        )


if __name__ == "__main__":
    main()
