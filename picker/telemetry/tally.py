"""Counters and histograms for one event loop: plain dictionaries, no lock, read by Prometheus when it asks.

prometheus-client's own instruments take a lock and a label lookup per observation, which the pick's path may not; its
exposition is used as it is.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

OTHER = "other"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FAST_SECONDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0)
TOKENS = (1.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)
BYTES = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0)
SIGNED_TOKENS = (-4096.0, -1024.0, -256.0, -64.0, -16.0, -1.0, 0.0, 16.0, 64.0, 256.0, 1024.0, 4096.0)


class Bounded:
    """Keeps a label set finite: past `limit` distinct tuples every new one counts as "other"."""

    def __init__(self, labels: Sequence[str], limit: int) -> None:
        self.labels = tuple(labels)
        self._other = (OTHER,) * len(self.labels)
        self._limit = limit

    def key(
        self, known: "dict[tuple[str, ...], float] | dict[tuple[str, ...], list[float]]", values: tuple[str, ...]
    ) -> tuple[str, ...]:
        return values if values in known or len(known) < self._limit else self._other


class Count:
    """A counter family."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), limit: int = 1000) -> None:
        self.name, self.help = name, help
        self._bounded = Bounded(labels, limit)
        self._values: dict[tuple[str, ...], float] = {}
        if not labels:
            self._values[()] = 0.0

    def add(self, *labels: str, by: float = 1.0) -> None:
        key = self._bounded.key(self._values, labels)
        self._values[key] = self._values.get(key, 0.0) + by

    def total(self) -> float:
        return sum(self._values.values())

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self.name, self.help, labels=self._bounded.labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        yield family


class Spread:
    """A histogram family with fixed upper bounds."""

    def __init__(
        self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = (), limit: int = 1000
    ) -> None:
        self.name, self.help = name, help
        self._bounds = tuple(bounds)
        self._bounded = Bounded(labels, limit)
        self._cells: dict[tuple[str, ...], list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        cells = self._cells.get(labels)
        if cells is None:
            key = self._bounded.key(self._cells, labels)
            # One count per bound, one past the last bound, then the sum.
            cells = self._cells.setdefault(key, [0.0] * (len(self._bounds) + 2))
        cells[bisect_left(self._bounds, value)] += 1
        cells[-1] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.help, labels=self._bounded.labels)
        for labels, cells in self._cells.items():
            running, buckets = 0.0, []
            for bound, count in zip(self._bounds, cells, strict=False):
                running += count
                buckets.append((f"{bound:g}", running))
            buckets.append(("+Inf", running + cells[-2]))
            family.add_metric(labels, buckets, sum_value=cells[-1])
        yield family
