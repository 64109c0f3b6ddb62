"""The same metrics under the names of older releases too, for dashboards that still ask for those. Costs them twice."""

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric

from picker.telemetry.peer_metrics import METRICS, PREFIX

OLDER = {
    (PREFIX + metric.name).removesuffix("_total"): metric.older.removesuffix("_total")
    for metric in METRICS
    if metric.older
}
OLDER_LABELS = {"model_server_endpoint": "model_server_pod"}


class Source(Protocol):
    """Anything that can say its metrics."""

    def collect(self) -> Iterator[Metric]: ...


class OlderNames:
    """Says what a source says, and what has an older name a second time under that."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            yield metric
            if metric.name in OLDER:
                yield renamed(metric, OLDER[metric.name])


def renamed(metric: Metric, name: str) -> Metric:
    """The same samples under another name, with labels as they were called then."""
    twin = Metric(name, f"{metric.name}, under its older name.", metric.type)
    for sample in metric.samples:
        labels = {OLDER_LABELS.get(label, label): value for label, value in sample.labels.items()}
        twin.samples.append(sample._replace(name=name + sample.name.removeprefix(metric.name), labels=labels))
    return twin
