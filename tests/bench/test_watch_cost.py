"""The bench of the watch counts what really happened."""

from bench.watch_cost import measure


def test_heartbeats_publish_nothing_and_flips_do() -> None:
    heartbeats, flips = measure(pods=40, rate=100.0, seconds=0.4)
    assert (heartbeats.kind, flips.kind) == ("heartbeats", "flips")
    assert min(heartbeats.events, flips.events) > 0
    assert heartbeats.published == 0 < flips.published
    assert min(heartbeats.share, flips.share, heartbeats.event_us, heartbeats.list_cpu_s) > 0
