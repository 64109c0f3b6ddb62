"""One run over time: the `series` of a cell."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.simulator.ended import Ended, Result
from picker.simulator.training import Progress

WINDOW_S = 60.0


def timeline(result: Result) -> dict[str, Any]:
    """`load[i][k]`: requests running and waiting on engine i at `t_s[k]`, 0 before it joined; `ttft_ms[k]`: mean of the
    requests that ended since the point before, None without any; `arrived`: the mean by time of arrival; `learning`:
    None for a policy that does not learn.

    Nothing is left out for warm-up. Times are of complete requests.
    """
    looks, complete = result.series.looks, [request for request in result.ended if request.complete]
    progress = [look.learning for look in looks if look.learning is not None]
    return {
        "t_s": [at / 1e3 for at in result.series.at_ms],
        "load": [[look.load[i] if i < len(look.load) else 0 for look in looks] for i in range(len(result.stations))],
        "ttft_ms": _ttft_by_end(complete, result.series.at_ms),
        "arrived": _ttft_by_arrival(complete),
        "learning": _learning(progress, result) if progress else None,
    }


def _ttft_by_end(complete: Sequence[Ended], at_ms: Sequence[float]) -> list[float | None]:
    ends = np.array([request.arrived_ms + request.e2e_ms for request in complete])
    means, counts = _means(np.searchsorted(at_ms, ends), complete, len(at_ms) + 1)
    return [mean if count else None for mean, count in zip(means, counts, strict=True)][: len(at_ms)]


def _ttft_by_arrival(complete: Sequence[Ended]) -> dict[str, Any]:
    """Windows in which nobody arrived are left out, so that there are no more of them than requests."""
    arrived = np.array([request.arrived_ms for request in complete])
    windows, places = np.unique(arrived // (WINDOW_S * 1e3), return_inverse=True)
    means, counts = _means(places, complete, len(windows))
    return {"window_s": WINDOW_S, "t_s": (windows * WINDOW_S).tolist(), "ttft_ms": means, "requests": counts}


def _means(places: NDArray[np.intp], complete: Sequence[Ended], length: int) -> tuple[list[float], list[int]]:
    """Mean TTFT, and of how many, of the requests at each place; 0 of none."""
    counts = np.bincount(places, minlength=length)
    sums = np.bincount(places, [request.ttft_ms or 0.0 for request in complete], length)
    return (sums / np.maximum(counts, 1)).tolist(), counts.tolist()


def _learning(progress: Sequence[Progress], result: Result) -> dict[str, Any]:
    """`model_share`: of the picks since the point before, None without any; the rest as it was at that point."""
    counts = [(0, 0), *((point.picks, point.by_model) for point in progress)]
    steps = [(picks - before, ours - ours_before) for (before, ours_before), (picks, ours) in pairwise(counts)]
    return {
        "model_error": [point.model_error for point in progress],
        "baseline_error": [point.baseline_error for point in progress],
        "model_share": [by_model / picks if picks else None for picks, by_model in steps],
        "mode": [point.mode.value for point in progress],
        "reason": [point.reason.value for point in progress],
        "version": [point.version for point in progress],
        "decode_weight": [point.decode_weight for point in progress],
        "handovers": [{"at_s": one.at_s, "was": one.was.value, "now": one.now.value} for one in result.handovers],
    }
