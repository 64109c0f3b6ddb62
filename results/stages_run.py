"""Run the cells of results/stages.py that are missing: `python -m results.stages_run`.

Goes on from what results/numbers keeps. A change of picker's own code does not start cells anew: delete files there
then. One cell at a time; each is written down when it is done.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from picker.simulator.replay_run import Cell, run_cell
from results.record import NUMBERS_AT, Record, read, rounded, write
from results.stages import CASES, Case, Task, tasks

_KEPT = (
    "requests", "completed", "refused", "span_s", "goodput", "goodput_share", "ttft_ms", "tpot_ms", "e2e_ms",
    "prefix_hit_ratio", "preemptions", "moved",
)  # fmt: skip


def play(task: Task) -> dict[str, Any]:
    """One cell as it is kept. Raises ValueError, OSError."""
    setting = task.case.setting()
    own = setting.workload(task.seed, task.case.requests).rate
    cell = run_cell(setting, Cell(task.policy, None, task.seed, task.rate / own))
    kept: dict[str, Any] = rounded({name: cell[name] for name in _KEPT})
    return {"policy": task.policy, "load": task.rate, "seed": task.seed, "short": None, **kept}


def read_all() -> dict[Case, Record]:
    """What is kept of each case."""
    return {case: read(NUMBERS_AT / case.kept, case.key()) for case in CASES}


def run_missing(wanted: Sequence[Task]) -> None:
    """In order."""
    records = read_all()
    for number, task in enumerate(wanted, 1):
        cells = records[task.case].cells
        if (task.policy, task.rate, task.seed, None) in cells:
            continue
        cell = cells[task.policy, task.rate, task.seed, None] = play(task)
        write(NUMBERS_AT / task.case.kept, records[task.case])
        said = f"{number} of {len(wanted)}: {task.case.name} at {task.rate:g}, {task.policy}, seed {task.seed}"
        print(f"{said}: E2E {cell['e2e_ms']['mean']} ms, {cell['goodput_share']:.0%} good", flush=True)


def main() -> None:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=names, default=[], metavar="A,B", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="only the first so many")
    given = parser.parse_args()
    seeds = list(dict.fromkeys(task.seed for task in tasks()))[: given.seeds]
    run_missing([t for t in tasks() if t.seed in seeds and (not given.case or t.case.name in given.case)])


if __name__ == "__main__":
    main()
