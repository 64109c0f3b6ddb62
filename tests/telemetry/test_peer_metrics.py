"""What dashboards of llm-d-router find here: the table of docs/migrate.md is the truth."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from test_decisions_watched import make_router
from test_operations_page import families

from picker.telemetry.metrics import PoolMetrics
from picker.telemetry.older_names import OLDER, OlderNames
from picker.telemetry.peer_metrics import METRICS, PREFIX, PeerMetric, table
from picker.telemetry.tally import Count, Spread

PAGE = Path(__file__).parents[2] / "docs" / "migrate.md"
EXPOSED = {metric.name + ("_total" if metric.type == "counter" else "") for metric in families()}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_here_unless_the_table_says_why_not(metric: PeerMetric) -> None:
    assert (PREFIX + metric.name in EXPOSED) == (not metric.absent)


def test_every_metric_of_that_prefix_is_in_the_table() -> None:
    assert {name for name in EXPOSED if name.startswith(PREFIX)} <= {PREFIX + metric.name for metric in METRICS}


def test_the_page_has_the_table() -> None:
    assert "\n".join(table()) in PAGE.read_text(), "run: python -m picker.telemetry.peer_metrics"


class _One(Collector):
    def __init__(self, source: OlderNames | Count | Spread) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        yield from self._source.collect()


def exposed(source: OlderNames | Count | Spread) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_One(source))
    return exposition.generate_latest(registry).decode()


def test_older_names_have_the_same_samples() -> None:
    count, spread = (
        Count("llm_d_epp_request", "R.", ("model_name",)),
        Spread("llm_d_epp_request_size_bytes", "B.", (1.0,)),
    )
    count.add("m", by=3)
    spread.observe(0.5)

    text = exposed(OlderNames(count)) + exposed(OlderNames(spread))

    for line in (
        'llm_d_epp_request_total{model_name="m"} 3.0',
        'inference_objective_request_total{model_name="m"} 3.0',
        'inference_objective_request_sizes_bucket{le="1"} 1.0',
        "inference_objective_request_sizes_sum 0.5",
    ):
        assert line in text.splitlines()


def test_older_names_have_the_labels_of_then() -> None:
    text = exposed(OlderNames(PoolMetrics(make_router(), "p")))

    assert 'inference_pool_per_pod_queue_size{model_server_pod="' in text
    assert 'inference_pool_ready_pods{name="p"}' in text


def test_what_had_no_older_name_is_said_once() -> None:
    plain = Count("picker_fallback_served", "F.")

    assert exposed(OlderNames(plain)) == exposed(plain)
    assert all(name.startswith(PREFIX) for name in OLDER)
