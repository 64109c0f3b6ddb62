"""Run the cells that are missing: `python -m results.run [--jobs N] [--policy A,B] [--without A,B]`.

Goes on from what results/numbers keeps. A change of picker's own code does not start cells anew: delete files there
then. Each cell is written down when it is done.
"""

import argparse
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any

from picker.simulator.ended import Ended
from picker.simulator.replay_run import Cell, measure_capacity, run_cell
from results.grid import Place, Task, tasks
from results.record import NUMBERS_AT, Record, kept_cell, read, write

NICE = 15


def run_task(task: Task, capacity: dict[str, float]) -> dict[str, Any]:
    """One cell as it is kept. `load` is the share of the capacity's arrival rate at which the stretch is played: the
    stretches of a trace differ in density."""
    setting = task.place.setting(task.seed, task.requests)
    rate = setting.workload(task.seed, setting.limit).rate
    ended: list[Ended] = []
    scale = task.load * capacity["arrivals_per_s"] / rate
    cell = run_cell(setting, Cell(task.policy, task.load, task.seed, scale), on_end=ended.append)
    return kept_cell(cell, ended, setting.warm_up, task.requests)


def capacity_of(place: Place) -> dict[str, float]:
    """Raises NoCapacity."""
    given = place.trace.full_load_per_s
    return measure_capacity(place.capacity_setting()) if given is None else {"arrivals_per_s": given}


class Desk:
    """The records, and what of them is missing."""

    def __init__(self, wanted: Iterable[Task]) -> None:
        self.wanted = list(wanted)
        places = dict.fromkeys(task.place for task in self.wanted)
        self.records: dict[Place, Record] = {place: read(NUMBERS_AT / place.kept, place.key()) for place in places}
        self.todo = [task for task in self.wanted if _key(task) not in self.records[task.place].cells]

    def keep_capacity(self, place: Place, capacity: dict[str, float]) -> None:
        self._latest(place).capacity = capacity
        write(NUMBERS_AT / place.kept, self.records[place])

    def keep(self, task: Task, cell: dict[str, Any]) -> None:
        self._latest(task.place).cells[_key(task)] = cell
        write(NUMBERS_AT / task.place.kept, self.records[task.place])
        said = f"{task.place.kept}: {task.policy} at {task.load} with seed {task.seed}"
        print(f"{said}, mean TTFT {cell['ttft_ms']['mean']} ms", flush=True)

    def _latest(self, place: Place) -> Record:
        """Read again: a run of other policies may have written since."""
        self.records[place] = read(NUMBERS_AT / place.kept, place.key())
        return self.records[place]


def run_missing(desk: Desk, jobs: int) -> int:
    """In order, `jobs` cells at a time, once the capacities are known. How many cells could not be run; why is
    printed."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=os.nice, initargs=(NICE,)) as workers:
        places = dict.fromkeys(task.place for task in desk.todo if desk.records[task.place].capacity is None)
        for place, measured in [(place, workers.submit(capacity_of, place)) for place in places]:
            try:
                desk.keep_capacity(place, measured.result())
            except ValueError as error:
                print(f"{place.kept}: {error}", flush=True)
        capacities = {place: record.capacity for place, record in desk.records.items() if record.capacity is not None}
        todo = iter([task for task in desk.todo if task.place in capacities])
        failed = sum(task.place not in capacities for task in desk.todo)
        running: dict[Future[dict[str, Any]], Task] = {}
        while True:
            for task in islice(todo, jobs - len(running)):
                running[workers.submit(run_task, task, capacities[task.place])] = task
            if not running:
                return failed
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(done)
                try:
                    desk.keep(task, done.result())
                except ValueError as error:
                    failed += 1
                    print(f"{task}: {error}", flush=True)


def chosen(policies: Sequence[str], without: Sequence[str]) -> list[Task]:
    """The grid's tasks, or those of some policies only."""
    return [task for task in tasks() if (not policies or task.policy in policies) and task.policy not in without]


def _key(task: Task) -> tuple[str, float, int, int | None]:
    return task.policy, task.load, task.seed, task.requests


def main() -> None:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--policy", type=names, default=[], metavar="A,B", help="only these")
    parser.add_argument("--without", type=names, default=[], metavar="A,B", help="all but these")
    given = parser.parse_args()
    desk = Desk(chosen(given.policy, given.without))
    print(f"{len(desk.todo)} of {len(desk.wanted)} cells to run", flush=True)
    if failed := run_missing(desk, max(1, given.jobs)):
        raise SystemExit(f"{failed} cells could not be run")


if __name__ == "__main__":
    main()
