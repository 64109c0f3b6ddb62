"""Who won, in words for somebody who reads only these."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from picker.simulator.report.cells import Grid, is_bound
from picker.simulator.verdict import FEWEST_SEEDS, METRICS, Verdict, compare

DECIDES = METRICS[0]


@dataclass(frozen=True, slots=True)
class Headline:
    """One sentence, and one line per load."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _AtLoad:
    """`winner` is empty where nobody wins alone."""

    winner: str
    leader: str
    line: str


def headline(cells: Sequence[Mapping[str, Any]], grid: Grid) -> Headline:
    """The lowest mean TTFT wins where it differs from all others by more than luck; policies that know the future do
    not take part."""
    taking_part = [cell for cell in cells if not is_bound(str(cell["policy"]))]
    if len({cell["policy"] for cell in taking_part}) < 2:
        return Headline("One policy: nothing to compare", ())
    found = [(load, _at_load(taking_part, grid, load)) for load in grid.loads]
    lines = tuple(f"At {load}: {result.line}" for load, result in found)
    winners = {result.winner for _, result in found}
    leaders = {result.leader for _, result in found}
    everywhere = f"at {grid.loads[0]}" if len(grid.loads) == 1 else "at every load"
    if _fewest_seeds(taking_part) < FEWEST_SEEDS:
        looks = f": {leaders.pop()} looks best {everywhere}" if len(leaders) == 1 else ""
        return Headline(f"Not enough seeds for a verdict{looks}", lines)
    if len(winners) == 1 and "" not in winners:
        return Headline(f"{winners.pop()} wins {everywhere}", lines)
    if winners == {""}:
        return Headline(f"Nobody wins alone {everywhere}", lines)
    if len(winners) == 2 and "" in winners:
        won, open_ = ([load for load, result in found if bool(result.winner) is wins] for wins in (True, False))
        return Headline(f"{max(winners)} wins at {_list(won)}; nobody wins alone at {_list(open_)}", lines)
    parts = [f"{result.winner or 'nobody'} at {load}" for load, result in found]
    return Headline(f"Winners differ: {', '.join(parts)}", lines)


def _fewest_seeds(cells: Sequence[Mapping[str, Any]]) -> int:
    seeds: dict[tuple[Any, ...], int] = {}
    for cell in cells:
        key = (cell["policy"], cell["load"], cell.get("time_scale"))
        seeds[key] = seeds.get(key, 0) + 1
    return min(seeds.values())


def _at_load(cells: Sequence[Mapping[str, Any]], grid: Grid, load: str) -> _AtLoad:
    names = {policy: figure for policy in grid.policies if (figure := _level(grid, policy, load)) is not None}
    ranked = sorted((policy for policy in names if not is_bound(policy)), key=names.__getitem__)
    if len(ranked) < 2:
        return _AtLoad("", "", "fewer than two policies completed anything.")
    leader, second = ranked[:2]
    here = [verdict for verdict in compare(cells, leader) if verdict.at == load]
    judged = {verdict.policy: verdict for verdict in here if verdict.metric == DECIDES.name}
    milliseconds = f"{DECIDES.name} {math.exp(names[leader]):,.0f} ms"
    buts = "".join(f" But {text}." for text in _buts(here))
    if judged[second].outcome == "not enough seeds":
        return _AtLoad("", leader, f"{leader} looks best ({milliseconds}, {second} next), on too few seeds.{buts}")
    ties = [policy for policy in ranked[1:] if judged[policy].outcome != "worse"]
    if ties:
        line = f"{_list([leader, *ties])} cannot be told apart in {DECIDES.name}; lowest on average is {leader}"
        return _AtLoad("", leader, f"{line} ({milliseconds}).{buts}")
    line = f"{leader} wins: {milliseconds}, {judged[second].factor} better than the next, {second}."
    return _AtLoad(leader, leader, line + buts)


def _level(grid: Grid, policy: str, load: str) -> float | None:
    """Mean over seeds of the logarithm, as verdicts take it."""
    values = [cell.value(DECIDES) for cell in grid.at(policy, load)]
    logs = [math.log(value) for value in values if value is not None and 0 < value < math.inf]
    return sum(logs) / len(logs) if logs and len(logs) == len(values) else None


def _buts(verdicts: Sequence[Verdict]) -> list[str]:
    """Where somebody is better than the leader: per metric the one that is so most; and whom lost requests help."""
    texts = []
    for metric in METRICS[1:]:
        better = [v for v in verdicts if v.metric == metric.name and v.outcome == "better"]
        if better:
            texts.append(max(better, key=lambda verdict: verdict.ratio or 0.0).text)
    most = max(verdicts, key=lambda verdict: verdict.lost[1] - verdict.lost[0])
    if most.lost[1] - most.lost[0] > 0.001:
        texts.append(f"{most.baseline} lost {most.lost[1]:.1%} of its requests, {most.policy} {most.lost[0]:.1%}")
    return texts


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
