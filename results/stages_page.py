"""docs/stage-results.md from the kept numbers: `python -m results.stages_page`. The words are in stages.md.j2, beside
this.

A test holds the page to results/numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from results import stages
from results.board import E2E, TPOT, TTFT, Board, Metric
from results.record import Record
from results.stages import BASELINE, CASES, MOVED, PLACED, POLICIES, Case
from results.stages_run import read_all
from results.tables import NONE, table
from results.template import filled

PAGE = Path("docs") / "stage-results.md"
E2E_P99 = Metric("P99 end-to-end time", "e2e_ms", "p99")
GOODPUT = Metric("good requests a second", "goodput")
LESS, MORE, WORSE = 0.60, 1.50, 1.01
"""Targets: end-to-end time and good requests over the baseline's where unlike lengths cost .2; and where they are free,
any time."""


def played(board: Board[Case]) -> list[tuple[Case, float]]:
    """Cases and rates at which the baseline and one with stages ran."""
    at = [(case, rate) for case in CASES for rate in sorted(case.rates)]
    return [(c, r) for c, r in at if board.at(c, BASELINE, r) and (board.at(c, MOVED, r) or board.at(c, PLACED, r))]


def figures(board: Board[Case]) -> str:
    """Every cell, means over seeds."""
    head = ("case", "alpha", "rate", "policy", "E2E, ms", "its P99", "TPOT", "TTFT", "good", "good a second")
    lines = []
    for case, rate in played(board):
        for policy in (policy for policy in POLICIES if board.at(case, policy, rate)):
            times = (_mean(board, metric, case, policy, rate) for metric in (E2E, E2E_P99, TPOT, TTFT))
            good = board.mean(Metric("good", "goodput_share"), case, policy, rate) or 0.0
            many = board.mean(GOODPUT, case, policy, rate) or 0.0
            first = policy == BASELINE
            what = (case.title, f"{case.alpha:g}", f"{rate:g}") if first else ("", "", "")
            lines.append((*what, f"`{policy}`", *times, f"{good:.0%}", f"{many:.2f}"))
    return table(head, lines)


def ratios(board: Board[Case]) -> str:
    """Stages over the baseline."""
    head = ("case", "alpha", "rate", "policy", "E2E", "its P99", "TPOT", "TTFT", "good a second", "seeds", "their E2E")
    lines = []
    for case, rate in played(board):
        for policy in (policy for policy in POLICIES[3:] if board.at(case, policy, rate)):
            found = [_ratio(board, metric, case, policy, rate) for metric in (E2E, E2E_P99, TPOT, TTFT, GOODPUT)]
            each = _by_seed(board, case, policy, rate)
            spread = f"{min(each):.2f} to {max(each):.2f}" if len(each) > 1 else NONE
            what = (case.title, f"{case.alpha:g}", f"{rate:g}", f"`{policy}`")
            lines.append((*what, *found, str(len(each)), spread))
    return table(head, lines)


def verdicts(board: Board[Case]) -> Sequence[str]:
    """Each target with what was reached by requests that move, at each case's highest rate."""
    told = []
    for case in CASES:
        rate = max(case.rates)
        e2e, good = (board.ratio(metric, case, MOVED, rate) for metric in (E2E, GOODPUT))
        if e2e is None or good is None:
            continue
        what = f"{case.title}, alpha {case.alpha:g}, {rate:g} a second: "
        if case.alpha == 0:
            found = {metric.name: board.ratio(metric, case, MOVED, rate) for metric in (E2E, E2E_P99, TPOT, TTFT)}
            over = [f"{name} x{one.value:.2f}" for name, one in found.items() if one and one.value > WORSE]
            fine = f"missed by {' and '.join(over)}" if over else "met"
            told.append(f"{what}E2E x{e2e.value:.2f} (nothing may be above {WORSE}): {fine}.")
        elif case.alpha == 0.2:
            met = [name for name, fine in (("E2E", e2e.value <= LESS), ("good requests", good.value >= MORE)) if fine]
            fine = f"{' and '.join(met)} met" if met else "missed"
            said = f"{what}E2E x{e2e.value:.2f} ({LESS:.2f}), good requests x{good.value:.2f} ({MORE:.2f})"
            told.append(f"{said}: {fine}.")
        else:
            told.append(f"{what}E2E x{e2e.value:.2f}, good requests x{good.value:.2f}; nothing was asked.")
    return told


def moves(board: Board[Case]) -> str:
    """Who moved, and what it took."""
    head = ("case", "alpha", "rate", "offers", "given up", "moved", "of all", "GB", "gap, ms", "its P99")
    lines = []
    for case, rate in played(board):
        cells = list(board.at(case, MOVED, rate).values())
        moved = [cell["moved"] for cell in cells if cell["moved"] and cell["moved"]["moved"]]
        if not moved:
            continue
        sums = [sum(one[name] for one in moved) for name in ("offered", "given_up", "moved")]
        share = sums[2] / (case.requests * len(cells))
        gaps = [sum(one["gap_ms"][name] for one in moved) / len(moved) for name in ("mean", "p99")]
        size = sum(one["gigabytes"] for one in moved)
        counts = map(str, sums)
        what = (case.title, f"{case.alpha:g}", f"{rate:g}")
        lines.append((*what, *counts, f"{share:.0%}", f"{size:,.0f}", *(f"{gap:,.0f}" for gap in gaps)))
    return table(head, lines)


def render(records: Mapping[Case, Record]) -> str:
    """The page. Raises ValueError where nothing was run."""
    board = Board({case: record.cells.values() for case, record in records.items()})
    if not played(board):
        raise ValueError("no cell is kept: python -m results.stages_run")
    seeds = {seed for record in records.values() for _, _, seed, _ in record.cells}
    return filled(
        "stages.md.j2",
        stages=stages,
        seeds=len(seeds),
        cells=sum(len(record.cells) for record in records.values()),
        figures=figures(board),
        ratios=ratios(board),
        verdicts=verdicts(board),
        moves=moves(board),
    )


def _mean(board: Board[Case], metric: Metric, case: Case, policy: str, rate: float) -> str:
    value = board.mean(metric, case, policy, rate)
    return NONE if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(board: Board[Case], metric: Metric, case: Case, policy: str, rate: float) -> str:
    found = board.ratio(metric, case, policy, rate)
    return NONE if found is None else f"{found.value:.2f}"


def _by_seed(board: Board[Case], case: Case, policy: str, rate: float) -> list[float]:
    """End-to-end time over the baseline's."""
    ours, theirs = (
        {seed: E2E.of(cell) for seed, cell in board.at(case, who, rate).items()} for who in (policy, BASELINE)
    )
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return [a / b for a, b in pairs if a and b]


def main() -> None:
    PAGE.write_text(render(read_all()), encoding="utf-8")


if __name__ == "__main__":
    main()
