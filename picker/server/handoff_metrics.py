"""What a hand-off proxy counts."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from picker.handoff.gaps import Gaps
from picker.telemetry.tally import SECONDS, Count, Spread

QUANTILES = (0.5, 0.99)


class HandoffMetrics(Collector):
    """`why` of a gap is `move` or `failover`."""

    def __init__(self, running: Callable[[], int], wait_s: Callable[[], float]) -> None:
        self._running, self._wait_s = running, wait_s
        self.requests = Count(
            "picker_handoff_requests", "Requests, by whether they can be moved, or why not.", ("kind",)
        )
        self.breaks = Count("picker_handoff_breaks", "Engines that broke under a request, by how.", ("how",))
        self.failovers = Count("picker_handoff_failovers", "Requests that went on elsewhere, or ended.", ("outcome",))
        self.moves = Count("picker_handoff_moves", "Running requests given to a peer, by outcome.", ("outcome",))
        self.taken = Count("picker_handoff_taken", "Streams of peers that went on here, by why they came.", ("why",))
        self.copies = Count("picker_handoff_copies", "KV brought to a peer, by way and outcome.", ("way", "outcome"))
        self.gap_seconds = Spread("picker_handoff_gap_seconds", "What a client waited at a change.", SECONDS, ("why",))
        self.gaps = {"move": Gaps(), "failover": Gaps()}

    def gap(self, why: str, seconds: float) -> None:
        self.gap_seconds.observe(seconds, why)
        self.gaps[why].add(seconds)

    def collect(self) -> Iterator[Metric]:
        counts = (self.requests, self.breaks, self.failovers, self.moves, self.taken, self.copies)
        for family in (*counts, self.gap_seconds):
            yield from family.collect()
        running = GaugeMetricFamily("picker_handoff_running", "Streams that run on the engine beside this proxy.")
        running.add_metric((), self._running())
        yield running
        wait = GaugeMetricFamily("picker_handoff_wait_seconds", "For a newcomer's first step, as bids have it.")
        wait.add_metric((), self._wait_s())
        yield wait
        quantiles = GaugeMetricFamily(
            "picker_handoff_gap_quantile_seconds", "Of the last gaps.", labels=("why", "quantile")
        )
        for why, gaps in self.gaps.items():
            for share in QUANTILES:
                if (value := gaps.quantile(share)) is not None:
                    quantiles.add_metric((why, f"{share:g}"), value)
        yield quantiles

    def registry(self) -> CollectorRegistry:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry
