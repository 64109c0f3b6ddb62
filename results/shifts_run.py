"""Run the cells of results/shifts.py that are missing: `python -m results.shifts_run`.

Goes on from what results/numbers keeps. A change of picker's own code does not start cells anew: delete files there
then. One cell at a time; each is written down when it is done.
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from picker.engines.rows import Rows
from picker.policies.policy import Policy, Scores
from picker.policies.variant import policy_maker
from picker.requests.request import Request
from picker.routing.decisions import Decision
from picker.simulator.bounds import Bound, is_bound, make_bound
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended
from picker.simulator.pool_spec import parse_pool
from picker.simulator.summary import spread, summarize
from results.record import NUMBERS_AT, Record, read, rounded, write
from results.shifts import BASELINE, ROLLOUT, TAIL, Case, Task, tasks

BIN_S = 10.0
_FROM_SUMMARY = ("requests", "completed", "span_s", "goodput_share", "prefix_hit_ratio")


class Reasons:
    """Counts picks by who decided and why."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def picked(self, decision: Decision) -> None:
        if decision.scores.by:
            self.counts[f"{decision.scores.by}: {decision.scores.because}"] += 1

    def ended(self, decision: Decision) -> None:
        pass


class Late:
    """`first` for so many picks, `then` afterwards."""

    def __init__(self, first: Policy, then: Policy, picks: int) -> None:
        self.name = then.name
        self._first, self._then, self._left = first, then, picks

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        return (self._first if self._left > 0 else self._then).score(request, rows, now)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        self._left -= 1
        self._first.picked(request, rows, row, now)


def play(task: Task) -> dict[str, Any]:
    """One cell as it is kept. Times are of the requests that every engine of the pool can hold: the others are
    refused by some, and a policy is none the better for losing them. Raises ValueError, OSError."""
    case = task.case
    setting, workload = case.setting(task.seed), case.workload(task.seed)
    bound = make_bound(task.policy, workload) if is_bound(task.policy) else None
    types, reasons = setting.types(), Reasons()

    def policy(rng: np.random.Generator) -> Policy:
        if bound is None:
            return policy_maker(task.policy)(rng)
        return Late(policy_maker(BASELINE)(rng), bound, case.requests - TAIL) if task.policy == ROLLOUT else bound

    cluster = Cluster(
        parse_pool(setting.pool, types),
        policy,
        seed=task.seed,
        signals=setting.signals,
        events=setting.pool_events(),
        joining=types.row,
        seers=[bound] if isinstance(bound, Bound) else [],
        watchers=[reasons],
    )
    result = cluster.run(workload)
    summary = summarize(result, setting.slo)
    room = min(station.engine.max_model_len for station in result.stations)
    complete = [one for one in result.ended if one.complete and one.prompt_tokens + one.output_tokens <= room]
    kept = {
        "policy": task.policy, "load": None, "seed": task.seed, "short": None,
        **{name: summary[name] for name in _FROM_SUMMARY},
        **_figures(complete),
        "phases": [_figures(part) for part in _phases(complete, case)],
        "tail": _figures([one for one in complete if one.job >= case.requests - TAIL]),
        "bins": _bins(complete),
        "reasons": dict(sorted(reasons.counts.items())),
    }  # fmt: skip
    cell: dict[str, Any] = rounded(kept)
    return cell


def _phases(complete: Iterable[Ended], case: Case) -> list[list[Ended]]:
    parts: list[list[Ended]] = [[] for _ in case.paces]
    for one in complete:
        parts[int(np.searchsorted(case.borders_s, one.arrived_ms / 1e3, side="right"))].append(one)
    return parts


def _figures(part: Sequence[Ended]) -> dict[str, Any]:
    ttft, tpot = (
        spread(value for value in values if value is not None)
        for values in ((one.ttft_ms for one in part), (one.tpot_ms for one in part))
    )
    return {"timed": len(part), "ttft_ms": ttft, "tpot_ms": tpot}


def _bins(complete: Sequence[Ended]) -> list[list[float]]:
    """Requests and the sum of their TTFT in ms, for every BIN_S seconds of arrivals."""
    at = np.array([one.arrived_ms / 1e3 // BIN_S for one in complete], np.int64)
    ttft = np.array([one.ttft_ms for one in complete], np.float64)
    counts, sums = np.bincount(at), np.bincount(at, weights=ttft)
    return [[int(count), round(float(total), 1)] for count, total in zip(counts, sums, strict=True)]


def read_all(cases: Iterable[Case]) -> dict[Case, Record]:
    """What is kept of each case."""
    return {case: read(NUMBERS_AT / case.kept, case.key()) for case in cases}


def run_missing(wanted: Sequence[Task]) -> None:
    """In order."""
    records = read_all(dict.fromkeys(task.case for task in wanted))
    for number, task in enumerate(wanted, 1):
        cells = records[task.case].cells
        if (task.policy, None, task.seed, None) in cells:
            continue
        cell = cells[task.policy, None, task.seed, None] = play(task)
        write(NUMBERS_AT / task.case.kept, records[task.case])
        said = f"{number} of {len(wanted)}: {task.case.name}, {task.policy} with seed {task.seed}"
        print(f"{said}: mean TTFT {cell['ttft_ms']['mean']} ms", flush=True)


def main() -> None:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=names, default=[], metavar="A,B", help="only these")
    given = parser.parse_args()
    run_missing([task for task in tasks() if not given.case or task.case.name in given.case])


if __name__ == "__main__":
    main()
