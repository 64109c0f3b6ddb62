"""One run in numbers: what a cell of a replay's JSON holds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.simulator.ended import Ended, Result
from picker.simulator.migration import Tally
from picker.simulator.timeline import timeline

GRID = np.linspace(0.0, 100.0, 101)


@dataclass(frozen=True, slots=True)
class Slo:
    """A request is good when its first token comes within `ttft_ms` + `ttft_ms_per_1k` per 1,000 prompt tokens, and
    its tokens then come within `tpot_ms` each, on the mean."""

    ttft_ms: float = 1000.0
    ttft_ms_per_1k: float = 62.5
    tpot_ms: float = 50.0

    def __post_init__(self) -> None:
        if not all(0 <= value < float("inf") for value in (self.ttft_ms, self.ttft_ms_per_1k, self.tpot_ms)):
            raise ValueError("an SLO's times must be finite and not negative")

    def met(self, request: Ended) -> bool:
        if not request.complete or request.ttft_ms is None:
            return False
        allowed = self.ttft_ms + self.ttft_ms_per_1k * request.prompt_tokens / 1000
        return request.ttft_ms <= allowed and (request.tpot_ms or 0.0) <= self.tpot_ms


def summarize(result: Result, slo: Slo, warm_up: int = 0) -> dict[str, Any]:
    """Numbers over the requests numbered from `warm_up` on; times over the complete ones among them.

    Per second is per second of virtual time from the first arrival to the last end, both among the requests counted.
    """
    counted = [request for request in result.ended if request.job >= warm_up]
    complete = [request for request in counted if request.complete]
    ttft = [request.ttft_ms for request in complete if request.ttft_ms is not None]
    begin = min((request.arrived_ms for request in counted), default=0.0)
    end = max((request.arrived_ms + request.e2e_ms for request in counted), default=0.0)
    span_s = max(end - begin, 1e-9) / 1e3
    good = sum(slo.met(request) for request in counted)
    prompt_tokens = sum(request.prompt_tokens for request in complete)
    return {
        "ttft_ms": spread(ttft),
        "tpot_ms": spread(t for t in (request.tpot_ms for request in complete) if t is not None),
        "e2e_ms": spread(request.e2e_ms for request in complete),
        "throughput": len(complete) / span_s,
        "output_tokens_per_s": sum(request.output_tokens for request in complete) / span_s,
        "goodput": good / span_s,
        "goodput_share": good / len(counted) if counted else 0.0,
        "prefix_hit_ratio": sum(r.cached_tokens for r in complete) / prompt_tokens if prompt_tokens else 0.0,
        "preemptions": sum(request.preemptions for request in counted),
        "requests": len(counted),
        "completed": len(complete),
        "refused": sum(request.status in (400, 503) for request in counted),
        "failed": sum(request.status == 0 for request in counted),
        "errors": len(counted) - len(complete),
        "span_s": span_s,
        "engines": [
            {
                "address": station.address,
                "type": station.row.name,
                "busy_share": station.busy_ms / result.span_ms if result.span_ms else 0.0,
                "requests": sum(request.address == station.address for request in counted),
                "alive": station.alive,
            }
            for station in result.stations
        ],
        "ttft_grid_ms": _quantiles(ttft, GRID),
        "moved": None if result.moved is None else _moved(result.moved),
        "series": timeline(result),
    }


def _moved(tally: Tally) -> dict[str, Any]:
    """Of the whole run."""
    counts = {name: getattr(tally, name) for name in ("offered", "given_up", "moved", "resumed")}
    return {**counts, "gigabytes": tally.bytes / 1e9, "gap_ms": spread(tally.gaps_ms)}


def spread(values: Iterable[float]) -> dict[str, float | None]:
    """Mean and quantiles; None where there is no value."""
    column = np.array(list(values), np.float64)
    if not len(column):
        return {"mean": None, "p50": None, "p90": None, "p99": None}
    p50, p90, p99 = np.percentile(column, (50, 90, 99)).tolist()
    return {"mean": float(column.mean()), "p50": p50, "p90": p90, "p99": p99}


def _quantiles(values: Sequence[float], grid: NDArray[np.float64]) -> list[float]:
    quantiles: list[float] = np.percentile(values, grid).tolist() if values else []
    return quantiles
