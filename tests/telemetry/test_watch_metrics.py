"""What Prometheus sees of a watch."""

from dataclasses import dataclass, field

from picker.server.kubernetes.mirror import WatchCount
from picker.telemetry.watch import WatchMetrics


@dataclass
class Watch:
    silent_s: float = 3.5
    counts: dict[str, WatchCount] = field(
        default_factory=lambda: {"pods": WatchCount(events=7, bad=1), "inferencepools.g": WatchCount()}
    )


def test_each_collection_has_its_counts_and_the_pool_one_silence() -> None:
    families = {family.name: family for family in WatchMetrics(Watch()).collect()}
    events = {sample.labels["kind"]: sample.value for sample in families["picker_watch_events"].samples}
    bad = {sample.labels["kind"]: sample.value for sample in families["picker_watch_bad"].samples}
    assert (events, bad["pods"]) == ({"pods": 7, "inferencepools.g": 0}, 1)
    assert families["picker_watch_silence_seconds"].samples[0].value == 3.5
