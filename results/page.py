"""docs/results.md from the kept numbers: `python -m results.page`. The words are in page.md.j2, beside this.

A test holds the page to results/numbers.
"""

from collections.abc import Mapping
from pathlib import Path

from results import grid, tables
from results.board import GOOD, P99, TPOT, TTFT, Board
from results.grid import PLACES, Place
from results.record import NUMBERS_AT, Record, read
from results.template import filled

PAGE = Path("docs") / "results.md"


def render(records: Mapping[Place, Record]) -> str:
    """The page. Raises ValueError where no cell is kept at all."""
    if not any(record.cells for record in records.values()):
        raise ValueError("no cell is kept: python -m results.run")
    board = Board({place: record.cells.values() for place, record in records.items()})
    capacities = {place: record.capacity for place, record in records.items() if record.capacity is not None}
    pools = [pool for pool in grid.POOLS if tables.rows(board, pool)]
    return filled(
        "page.md.j2",
        board=board,
        pools=pools,
        tables=tables,
        grid=grid,
        extent=tables.extent(board, PLACES, capacities),
        cells=sum(len(record.cells) for record in records.values()),
        TTFT=TTFT,
        P99=P99,
        TPOT=TPOT,
        GOOD=GOOD,
    )


def read_all() -> dict[Place, Record]:
    return {place: read(NUMBERS_AT / place.kept, place.key()) for place in PLACES}


def main() -> None:
    PAGE.write_text(render(read_all()), encoding="utf-8")


if __name__ == "__main__":
    main()
