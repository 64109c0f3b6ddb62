"""Counters and histograms for one event loop: plain dictionaries, no lock, read by Prometheus when it asks.

prometheus-client's own instruments take a lock and a label lookup per observation, which the pick's path may not; its
exposition is used as it is.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

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

    def key(self, known: Collection[tuple[str, ...]], values: tuple[str, ...]) -> tuple[str, ...]:
        return values if values in known or len(known) < self._limit else self._other


class Sum:
    """One label set of a counter, for who counts it often."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, by: float = 1.0) -> None:
        self.value += by


class Count:
    """A counter family."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = (), limit: int = 1000) -> None:
        self.name, self.help = name, help
        self._bounded = Bounded(labels, limit)
        self._sums: dict[tuple[str, ...], Sum] = {}
        if not labels:
            self.of()

    def of(self, *labels: str) -> Sum:
        found = self._sums.get(labels)
        return found or self._sums.setdefault(self._bounded.key(self._sums, labels), Sum())

    def add(self, *labels: str, by: float = 1.0) -> None:
        self.of(*labels).value += by

    def total(self) -> float:
        return sum(each.value for each in self._sums.values())

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self.name, self.help, labels=self._bounded.labels)
        for labels, each in self._sums.items():
            family.add_metric(labels, each.value)
        yield family


class Cells:
    """One label set of a histogram, for who counts it often: a count per bound, and one past the last bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Spread:
    """A histogram family with fixed upper bounds. Label sets without a value are not told."""

    def __init__(
        self, name: str, help: str, bounds: Sequence[float], labels: Sequence[str] = (), limit: int = 1000
    ) -> None:
        self.name, self.help = name, help
        self._bounds = tuple(bounds)
        self._bounded = Bounded(labels, limit)
        self._cells: dict[tuple[str, ...], Cells] = {}

    def of(self, *labels: str) -> Cells:
        found = self._cells.get(labels)
        return found or self._cells.setdefault(self._bounded.key(self._cells, labels), Cells(self._bounds))

    def observe(self, value: float, *labels: str) -> None:
        self.of(*labels).observe(value)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self.help, labels=self._bounded.labels)
        for labels, cells in self._cells.items():
            running = list(accumulate(cells.counts))
            if running[-1]:
                bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
                buckets = list(zip(bounds, map(float, running), strict=True))
                family.add_metric(labels, buckets, sum_value=cells.sum)
        yield family
