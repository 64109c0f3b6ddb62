"""Metrics of what feeds the pick: scrapes, KV events, prefix indexes."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, Metric

from picker.engines.scrape import ScrapeCount
from picker.routing.router import Router
from picker.telemetry.metrics import gauge


class Scrapes(Protocol):
    """Counts of the scraper, by slot."""

    @property
    def counts(self) -> Mapping[int, ScrapeCount]: ...


class Index(Protocol):
    """A prefix index that knows its size."""

    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


class SourceMetrics:
    """Read when Prometheus asks. The label `endpoint` is bounded by the pool's size."""

    def __init__(self, router: Router, scrapes: Scrapes, events: Index, picks: Index) -> None:
        self._router = router
        self._scrapes = scrapes
        self._indexes = {"events": events, "picks": picks}

    def collect(self) -> Iterator[Metric]:
        errors = CounterMetricFamily(
            "llm_d_epp_datalayer_poll_errors", "Failed scrapes.", labels=["source_type", "endpoint"]
        )
        polls = CounterMetricFamily("picker_scrapes", "Good scrapes.", labels=["endpoint"])
        seconds = CounterMetricFamily("picker_scrape_seconds", "Time spent waiting for pages.", labels=["endpoint"])
        view = self._router.pool.view
        for endpoint, slot in zip(view.endpoints, view.slots.tolist(), strict=True):
            count = self._scrapes.counts.get(slot)
            if count is not None:
                errors.add_metric(["metrics-data-source", endpoint.address], count.failed)
                polls.add_metric([endpoint.address], count.ok)
                seconds.add_metric([endpoint.address], count.seconds)
        yield from (errors, polls, seconds)
        for name, index in self._indexes.items():
            yield gauge("llm_d_epp_prefix_indexer_size", "Indexed (block, endpoint) pairs.", len(index), index=name)
            yield gauge("picker_prefix_index_bytes", "Memory of the index.", index.nbytes, index=name)
