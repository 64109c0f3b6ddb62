"""Metrics of what feeds the pick: scrapes, KV events, prefix indexes."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from picker.engines.kv_stream import KvCount
from picker.engines.scrape import ScrapeCount
from picker.pool.view import Pool


class Scrapes(Protocol):
    """Counts of the scraper, by slot."""

    @property
    def counts(self) -> Mapping[int, ScrapeCount]: ...


class Events(Protocol):
    """Counts of KV events, by slot."""

    @property
    def counts(self) -> Mapping[int, KvCount]: ...


KV_COUNTS = {
    "batches": "Batches of KV events applied.",
    "stored_blocks": "Blocks that engines announced.",
    "removed_blocks": "Blocks that engines took back.",
    "orphan_blocks": "Blocks not indexed, their parent being unknown.",
    "malformed": "KV events that cannot be read.",
    "gaps": "Gaps in the batches' numbers.",
    "lost_batches": "Batches missing, and not brought back by a replay.",
    "replays": "Replays that were asked for.",
    "failed_replays": "Replays that did not come to their end.",
    "restarts": "Engines that began to count anew.",
}


class Index(Protocol):
    """A prefix index that knows its size."""

    def __len__(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


class Viewed(Protocol):
    """Whoever serves a pool, or watches its engines."""

    @property
    def pool(self) -> Pool: ...


class IndexMetrics:
    """Sizes of the indexes that a process keeps, by name. Read when Prometheus asks."""

    def __init__(self, indexes: Mapping[str, Index]) -> None:
        self._indexes = dict(indexes)

    def collect(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("llm_d_epp_prefix_indexer_size", "Indexed (block, endpoint) pairs.", labels=["index"])
        memory = GaugeMetricFamily("picker_prefix_index_bytes", "Memory of the index.", labels=["index"])
        for name, index in self._indexes.items():
            size.add_metric([name], len(index))
            memory.add_metric([name], index.nbytes)
        yield from (size, memory)


class Placements(Protocol):
    """Where workers placed prompts, as their collector takes it in."""

    @property
    def lost(self) -> int: ...


class PlacementMetrics:
    """What the collector missed. Read when Prometheus asks."""

    def __init__(self, placements: Placements) -> None:
        self._placements = placements

    def collect(self) -> Iterator[Metric]:
        lost = CounterMetricFamily("picker_placements_lost", "Placements of workers that nobody else was told of.")
        lost.add_metric([], self._placements.lost)
        yield lost


class SourceMetrics:
    """Read when Prometheus asks. The label `endpoint` is bounded by the pool's size."""

    def __init__(self, watcher: Viewed, scrapes: Scrapes, feed: Events) -> None:
        self._watcher = watcher
        self._scrapes = scrapes
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        errors = CounterMetricFamily(
            "llm_d_epp_datalayer_poll_errors", "Failed scrapes.", labels=["source_type", "endpoint"]
        )
        polls = CounterMetricFamily("picker_scrapes", "Good scrapes.", labels=["endpoint"])
        seconds = CounterMetricFamily("picker_scrape_seconds", "Time spent waiting for pages.", labels=["endpoint"])
        view = self._watcher.pool.view
        for endpoint, slot in zip(view.endpoints, view.slots.tolist(), strict=True):
            count = self._scrapes.counts.get(slot)
            if count is not None:
                errors.add_metric(["metrics-data-source", endpoint.address], count.failed)
                polls.add_metric([endpoint.address], count.ok)
                seconds.add_metric([endpoint.address], count.seconds)
        yield from (errors, polls, seconds)
        yield from self._kv_events()

    def _kv_events(self) -> Iterator[Metric]:
        view, counts = self._watcher.pool.view, self._feed.counts
        heard = [
            (e.address, counts[s]) for e, s in zip(view.endpoints, view.slots.tolist(), strict=True) if s in counts
        ]
        for field, help in KV_COUNTS.items():
            family = CounterMetricFamily(f"picker_kv_{field}", help, labels=["endpoint"])
            for address, count in heard:
                family.add_metric([address], getattr(count, field))
            yield family
