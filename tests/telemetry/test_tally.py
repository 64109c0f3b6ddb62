"""Counters and histograms: what Prometheus reads is what was counted, and labels cannot grow without bound."""

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from picker.telemetry.tally import OTHER, Count, Spread

FORMATS = [(exposition.generate_latest, read_text), (openmetrics.generate_latest, read_openmetrics)]


class _One(Collector):
    def __init__(self, family: Count | Spread) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return self._family.collect()


Write = Callable[[CollectorRegistry], bytes]
Read = Callable[[str], Iterable[Metric]]


def exposed(
    family: Count | Spread, write: Write = exposition.generate_latest, read: Read = read_text
) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, through Prometheus's own writer and parser."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_One(family))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for metric in read(write(registry).decode())
        for sample in metric.samples
    }


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_a_counter_is_exposed_as_it_was_counted(write: Write, read: Read) -> None:
    count = Count("requests", "Requests.", ("model", "code"))  # read back in the order of their names: code, model
    count.add("a", "200")
    count.add("a", "200")
    count.add("b", "500", by=2.5)
    assert exposed(count, write, read) == {("requests_total", "200", "a"): 2, ("requests_total", "500", "b"): 2.5}
    assert count.total() == 4.5


def test_a_counter_without_labels_starts_at_zero() -> None:
    assert exposed(Count("requests", "Requests.")) == {("requests_total",): 0}


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_a_histogram_counts_into_buckets_that_include_their_bound(write: Write, read: Read) -> None:
    spread = Spread("seconds", "Time.", (0.1, 1.0), ("model",))
    for value in (0.05, 0.1, 0.5, 7.0):
        spread.observe(value, "a")
    assert exposed(spread, write, read) == {
        ("seconds_bucket", "0.1", "a"): 2,
        ("seconds_bucket", "1", "a"): 3,
        ("seconds_bucket", "+Inf", "a"): 4,
        ("seconds_count", "a"): 4,
        ("seconds_sum", "a"): 7.65,
    }


@given(st.lists(st.floats(-1e9, 1e9), max_size=30))
def test_buckets_never_decrease_and_end_with_the_count(values: list[float]) -> None:
    spread = Spread("x", "Values.", (0.0, 0.5, 1e6))
    for value in values:
        spread.observe(value)
    found = exposed(spread)
    buckets = [value for key, value in found.items() if key[0] == "x_bucket"]
    assert buckets == sorted(buckets)
    assert found.get(("x_count",), 0) == len(values)
    assert math.isclose(found.get(("x_sum",), 0), sum(values), abs_tol=1e-3)


@given(st.text(max_size=20).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_any_label_value_survives_the_exposition(value: str) -> None:
    count = Count("requests", "Requests.", ("model",))
    count.add(value)
    assert exposed(count) == {("requests_total", value): 1}


@pytest.mark.parametrize(
    "make", [lambda: Count("x", "X.", ("a", "b"), 3), lambda: Spread("x", "X.", (1.0,), ("a", "b"), 3)]
)
def test_labels_past_the_limit_count_as_other(make: Callable[[], Count | Spread]) -> None:
    family = make()
    add = family.add if isinstance(family, Count) else lambda *labels: family.observe(0.5, *labels)
    for i in range(100):
        add(f"model-{i}", "x")
    add("model-0", "x")
    found = {key[1:3]: value for key, value in exposed(family).items() if key[0] in ("x_total", "x_count")}
    assert found == {("model-0", "x"): 2, ("model-1", "x"): 1, ("model-2", "x"): 1, (OTHER, OTHER): 97}
