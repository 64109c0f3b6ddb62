"""Metrics of the watch of a pool that Kubernetes keeps."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, Metric

from picker.telemetry.metrics import gauge


class Counts(Protocol):
    """How the watch of one collection went so far."""

    lists: int
    watches: int
    events: int
    failures: int
    bad: int


class Watch(Protocol):
    """The watch of one pool: its counts by collection, and seconds since its API server last said anything."""

    @property
    def counts(self) -> Mapping[str, Counts]: ...
    @property
    def silent_s(self) -> float: ...


COUNTS = {
    "lists": "Pages of lists that were asked for.",
    "watches": "Watches that were opened.",
    "events": "Events of watches, bookmarks among them.",
    "failures": "Lists and watches that failed or broke off.",
    "bad": "Objects that could not be read.",
}


class WatchMetrics:
    """Read when Prometheus asks. The label `kind` is one of the few collections that are watched."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        for field, help in COUNTS.items():
            family = CounterMetricFamily(f"picker_watch_{field}", help, labels=["kind"])
            for kind, count in self._watch.counts.items():
                family.add_metric([kind], getattr(count, field))
            yield family
        silence = "Seconds since the API server last said anything; well above 10 it is away."
        yield gauge("picker_watch_silence_seconds", silence, self._watch.silent_s)
