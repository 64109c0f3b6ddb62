"""docs/learning-results.md from the kept numbers: `python -m results.shifts_page`. The words are in shifts.md.j2,
beside this.

A test holds the page to results/numbers.
"""

from collections.abc import Mapping
from pathlib import Path

from results import shifts, shifts_tables
from results.board import Board
from results.record import Record
from results.shifts import CASES, LEARNED, Case
from results.shifts_run import read_all
from results.template import filled

PAGE = Path("docs") / "learning-results.md"


def render(records: Mapping[Case, Record]) -> str:
    """The page. Raises ValueError where `learned` has no cell at all."""
    board = Board({case: record.cells.values() for case, record in records.items()})
    if LEARNED not in board.policies:
        raise ValueError("no cell is kept: python -m results.shifts_run")
    cells = sum(len(record.cells) for record in records.values())
    return filled("shifts.md.j2", board=board, tables=shifts_tables, shifts=shifts, cells=cells)


def main() -> None:
    PAGE.write_text(render(read_all(CASES)), encoding="utf-8")


if __name__ == "__main__":
    main()
