"""The tables of docs/learning-results.md, in Markdown. Pure. Ratios below 1 are in favour of the one that is named."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from picker.simulator.learning_time import Windows, stays_better
from results.board import P99, TPOT, TTFT, Board, Figure, Metric, Ratio
from results.shifts import ABLATED, ABLATIONS, BASELINE, BOUND, CASES, LEARNED, POLICIES, ROLLOUT, SEEDS, TAIL, Case
from results.shifts_run import BIN_S
from results.tables import LOST, NONE, table

MINUTE = round(60 / BIN_S)
"""In bins."""
RULES = POLICIES[:2]
LIKE, CLOSE = ("slowed",), ("agentic-close",)
"""Cases whose engines are equal, and whose classes are near each other; the others mix fast with slow."""
PARTS = tuple(f"{LEARNED}?{part}" for part in ABLATIONS)
ALLOWED = 1.02
"""How much worse than the better rule is still allowed."""


@dataclass(frozen=True, slots=True)
class Part:
    """A figure of one phase of a cell, or of its tail."""

    where: str
    number: int | None
    metric: Metric

    def of(self, cell: Mapping[str, Any]) -> float | None:
        inside = cell[self.where] if self.number is None else cell[self.where][self.number]
        return self.metric.of(inside)


def windows(bins: Sequence[Sequence[float]]) -> Windows:
    """The same by the minute."""
    minutes = [_totals(bins[first : first + MINUTE]) for first in range(0, len(bins), MINUTE)]
    known = [(60.0 * at, total / count, int(count)) for at, (count, total) in enumerate(minutes) if count]
    return Windows(60.0, *map(list, zip(*known, strict=True))) if known else Windows()


def ratio_before(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], until_s: float) -> float | None:
    """Mean TTFT of what arrived before, as a ratio; None where nothing did."""
    mine, other = (_totals(bins[: round(until_s / BIN_S)]) for bins in (ours, theirs))
    return mine[1] / mine[0] / (other[1] / other[0]) if mine[0] and other[1] else None


def extent(board: Board[Case]) -> str:
    lines = []
    for case in _known(board):
        cells = board.at(case, LEARNED, None)
        spans = [cell["span_s"] for cell in cells.values()]
        counts = sorted({cell["requests"] for cell in cells.values()})
        asked = " – ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        lines.append((case.title, str(len(cells)), asked, f"{sum(spans) / len(spans):,.0f}"))
    return table(("case", "seeds", "requests each", "seconds"), lines)


def lost(board: Board[Case]) -> str:
    """Share of requests that were not completed, where there are any; empty without."""
    lines = []
    for case in _known(board):
        shares = [board.lost(case, policy, None) or 0.0 for policy in POLICIES]
        if any(shares):
            lines.append((case.title, *(f"{share:.1%}" for share in shares)))
    return table(("case", *POLICIES), lines) if lines else ""


def glance(board: Board[Case]) -> str:
    """`learned` over both rules, whole cases."""
    figures = (TTFT, P99, TPOT)
    head = ["case", "seeds", *(f"{metric.name} to {rule}" for rule in RULES for metric in figures)]
    lines = []
    for case in _known(board):
        ratios = [board.ratio(metric, case, LEARNED, None, to=rule) for rule in RULES for metric in figures]
        lines.append((case.title, str(len(board.at(case, LEARNED, None))), *map(shown, ratios)))
    return table(head, lines)


def targets(board: Board[Case]) -> str:
    """What was aimed at in mean TTFT, as times better, and what came; how far from the better rule."""
    head = (
        "case", "target to prefix-and-load", "got", f"target to {BASELINE}", "got",
        "TTFT to the better rule", "TPOT to the better rule", "within 2 %",
    )  # fmt: skip
    lines = []
    for case in _known(board):
        aims = {rule: aim(case, rule) for rule in RULES}
        found = {rule: board.ratio(TTFT, case, LEARNED, None, to=rule) for rule in RULES}
        worst = [worst_ratio(board, case, metric) for metric in (TTFT, TPOT)]
        kept = not loses_more(board, case)
        verdict = NONE if None in worst else "yes" if max(value for value in worst if value) <= ALLOWED else "**no**"
        verdict += "" if kept else ", but loses more"
        cells = [case.title]
        for rule in reversed(RULES):
            cells += [
                NONE if aims[rule] is None else f"{aims[rule]:.2f}x",
                times(found[rule], aims[rule] if kept else None),
            ]
        cells += [*(NONE if value is None else f"{value:.2f}" for value in worst), verdict]
        lines.append(cells)
    return table(head, lines)


def aim(case: Case, rule: str) -> float | None:
    """How many times lower than the rule's the mean TTFT is to be; None where nothing was promised."""
    if rule == BASELINE:
        return None if case.name in LIKE else 1.1 if case.name in CLOSE else 1.25
    return 1.41 if case.name in (*LIKE, *CLOSE) else 1.9


def worst_ratio(board: Board[Case], case: Case, metric: Metric) -> float | None:
    """To the rule that is better in this metric."""
    ratios = [board.ratio(metric, case, LEARNED, None, to=rule) for rule in RULES]
    return None if None in ratios else max(ratio.value for ratio in ratios if ratio)


def times(ratio: Ratio | None, target: float | None) -> str:
    """As a number above 1 for better, rounded down; bold where the target is met."""
    if ratio is None:
        return NONE
    better = math.floor(100 / ratio.value + 1e-9) / 100
    text = f"{better:.2f}x"
    return f"**{text}**" if target is not None and better >= target else text


def verdicts(board: Board[Case]) -> list[str]:
    """The targets in words: where they are met, and by how much they are missed."""
    told = []
    for rule in reversed(RULES):
        aims = {case: aim(case, rule) for case in _known(board)}
        found = {
            case: times(board.ratio(TTFT, case, LEARNED, None, to=rule), None if loses_more(board, case) else target)
            for case, target in aims.items()
        }
        missed = [
            f"{case.title} ({found[case]} of {target:.2f}x{', losing requests' if loses_more(board, case) else ''})"
            for case, target in aims.items()
            if target is not None and "*" not in found[case]
        ]
        asked = sum(target is not None for target in aims.values())
        told.append(f"Beside `{rule}`: met in {asked - len(missed)} of {asked} cases. {_listed('Missed', missed)}")
    for metric in (TTFT, P99, TPOT):
        worst = {case: worst_ratio(board, case, metric) for case in _known(board)}
        over = [f"{case.title} ({value:.2f})" for case, value in worst.items() if value and value > ALLOWED]
        told.append(f"{metric.name}, to the better rule: {_listed('more than 2 % worse on', over)}")
    losing = [case.title for case in _known(board) if loses_more(board, case)]
    told.append(_listed("Loses more requests than a rule, which flatters its times; no target counts as met", losing))
    return told


def loses_more(board: Board[Case], case: Case) -> bool:
    """Whether fewer of the requests are completed than under one of the rules."""
    ours, *theirs = (board.lost(case, policy, None) or 0.0 for policy in (LEARNED, *RULES))
    return ours > min(theirs) + LOST


def _listed(what: str, those: Sequence[str]) -> str:
    return f"{what}: {'; '.join(those)}." if those else f"{what}: none."


def phases(board: Board[Case]) -> str:
    head = ("case", "phase", f"{BASELINE}, ms", "TTFT", "P99", "TPOT", "TTFT to prefix-and-load")
    lines = []
    for case in (case for case in _known(board) if len(case.paces) > 1):
        for number, pace in enumerate(case.paces):
            parts = [Part("phases", number, metric) for metric in (TTFT, P99, TPOT)]
            base = board.mean(parts[0], case, BASELINE, None)
            ratios = [board.ratio(part, case, LEARNED, None) for part in parts]
            to_prefix = board.ratio(parts[0], case, LEARNED, None, to="prefix-and-load")
            milliseconds = NONE if base is None else f"{base:,.0f}"
            lines.append((case.title, pace.name, milliseconds, *map(shown, ratios), shown(to_prefix)))
    return table(head, lines)


def learning(board: Board[Case]) -> str:
    """Per seed: from when on better, and what it cost until then."""
    lines = []
    for case in _known(board):
        ours, theirs = board.at(case, LEARNED, None), board.at(case, BASELINE, None)
        whens, costs = [], []
        for seed in sorted(ours.keys() & theirs.keys()):
            mine, other = ours[seed]["bins"], theirs[seed]["bins"]
            since = stays_better(windows(mine), windows(other))
            before = ratio_before(mine, other, len(other) * BIN_S if since is None else since)
            whens.append("never" if since is None else f"{since:.0f}")
            costs.append(NONE if before is None else f"{before:.2f}")
        lines.append((case.title, ", ".join(whens), ", ".join(costs)))
    return table(("case", "better from second", "TTFT until then"), lines)


def reasons(board: Board[Case]) -> str:
    """Share of picks by who decided and why, all seeds together."""
    found = {
        case: sum((Counter(cell["reasons"]) for cell in board.at(case, LEARNED, None).values()), Counter[str]())
        for case in _known(board)
    }
    names = sorted({name for counts in found.values() for name in counts})
    lines = [
        (case.title, *(f"{counts[name] / counts.total():.1%}" for name in names)) for case, counts in found.items()
    ]
    return table(("case", *names), lines)


def bounds(board: Board[Case]) -> str:
    """Whole cases on the first seed: TTFT / TPOT over the baseline's; how much of the bound's gain in TTFT is had, and
    what the bound makes of the other rule."""
    policies = (*POLICIES[1:], BOUND)
    lines = []
    for case in (case for case in _known(board) if board.at(case, BOUND, None)):
        only = Board({case: [board.at(case, policy, None)[SEEDS[0]] for policy in (BASELINE, *policies)]})
        ours, best = (only.ratio(TTFT, case, policy, None) for policy in (LEARNED, BOUND))
        gained = NONE if not ours or not best or best.value >= 1 else f"{(1 - ours.value) / (1 - best.value):.0%}"
        reach = times(only.ratio(TTFT, case, BOUND, None, to="prefix-and-load"), None)
        lines.append((case.title, *(_pair(only, case, policy, TTFT, TPOT) for policy in policies), gained, reach))
    return table(("case", *policies, "of its gain", "it to prefix-and-load"), lines)


def tails(board: Board[Case]) -> str:
    """The same of the last requests, with the rollout beside."""
    policies = (*POLICIES[1:], BOUND, ROLLOUT)
    ttft, tpot = (Part("tail", None, metric) for metric in (TTFT, TPOT))
    lines = []
    for case in (case for case in _known(board) if board.at(case, ROLLOUT, None)):
        only = Board({case: [board.at(case, policy, None)[SEEDS[0]] for policy in (BASELINE, *policies)]})
        lines.append((case.title, *(_pair(only, case, policy, ttft, tpot) for policy in policies)))
    return table((f"last {TAIL} requests", *policies), lines)


def ablations(board: Board[Case]) -> str:
    """Each part left out: TTFT / P99 / TPOT over the whole policy's."""
    cases = [case for case in _known(board) if case.name in ABLATED]
    lines = []
    for part, words in ABLATIONS.items():
        policy = f"{LEARNED}?{part}"
        cells = [
            " / ".join(shown(board.ratio(metric, case, policy, None, to=LEARNED)) for metric in (TTFT, P99, TPOT))
            if board.at(case, policy, None)
            else NONE
            for case in cases
        ]
        counts = sorted({len(board.at(case, policy, None)) for case in cases} - {0})
        if counts:
            seeds = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
            lines.append((f"{words} (`{part}`)", seeds, *cells))
    return table(("", "seeds", *(case.title for case in cases)), lines)


def shown(ratio: Ratio | None) -> str:
    """With its interval where there is one."""
    if ratio is None:
        return NONE
    ends = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f}–{ratio.high:.2f})"
    return f"{ratio.value:.2f}{ends}"


def _pair(board: Board[Case], case: Case, policy: str, *metrics: Figure) -> str:
    return " / ".join(shown(board.ratio(metric, case, policy, None)) for metric in metrics)


def _known(board: Board[Case]) -> list[Case]:
    """Cases that all of POLICIES played with some seed."""
    return [case for case in CASES if all(board.at(case, policy, None) for policy in POLICIES)]


def _totals(bins: Sequence[Sequence[float]]) -> tuple[float, float]:
    return sum(count for count, _ in bins), sum(total for _, total in bins)
