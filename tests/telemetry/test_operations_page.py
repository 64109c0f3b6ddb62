"""docs/operations.md names every metric there is, and no test that does not exist."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.core import Metric
from test_decisions_watched import make_router

from picker.engines.http_fetch import HttpFetch
from picker.engines.index import PrefixIndex
from picker.engines.kv_feed import KvFeed
from picker.engines.ledger import Ledger
from picker.engines.scrape import Scraper
from picker.engines.table import EngineTable
from picker.pool.kube.scope import KubeScope
from picker.server.connections import ConnectionMetrics
from picker.server.health import ALWAYS_SERVING, READY_NAMES
from picker.server.kubernetes.source import KubernetesSource
from picker.server.replicas import Replicas
from picker.shared.flights import local_flights
from picker.telemetry.learning import LearningMetrics, LoopState
from picker.telemetry.metrics import PoolMetrics, RequestMetrics
from picker.telemetry.sources import IndexMetrics, PlacementMetrics, SourceMetrics
from picker.telemetry.watch import WatchMetrics

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text()


def families() -> list[Metric]:
    router, index = make_router(), PrefixIndex()
    scraper = Scraper(EngineTable(), Ledger(), HttpFetch())
    sources, indexes = SourceMetrics(router, scraper, KvFeed(index)), IndexMetrics({"events": index})
    learning = LearningMetrics(LoopState(), lambda: 0.0)
    watch = WatchMetrics(KubernetesSource(KubeScope("ns", pool="p"), print))
    replicas = Replicas("redis://nowhere", "stream", "us", (), local_flights())
    rest = [ConnectionMetrics([]), PlacementMetrics(SimpleNamespace(lost=0))]
    pool: list[Any] = [RequestMetrics(), PoolMetrics(router, "p"), sources, indexes, learning, watch, replicas]
    return [metric for source in [*rest, *pool] for metric in source.collect()]


def test_every_metric_is_on_the_page_and_nothing_else() -> None:
    exposed = {metric.name + ("_total" if metric.type == "counter" else "") for metric in families()}
    named = {name for name in re.findall(r"`((?:llm_d_epp|picker)_[a-z0-9_]+)", PAGE) if not name.endswith("_")}
    assert named == exposed


def test_every_health_name_is_on_the_page() -> None:
    assert all(f"`{name}`" in PAGE for name in (*ALWAYS_SERVING, *READY_NAMES) if name)


def test_every_test_on_the_page_exists() -> None:
    named = set(re.findall(r"`(test_[a-z0-9_]+)`", PAGE))
    written = "".join(file.read_text() for file in (ROOT / "e2e" / "local").glob("test_*.py"))
    assert named
    assert {name for name in named if f"def {name}(" not in written} == set()
