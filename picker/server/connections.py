"""How many connections the gRPC ports of a process had no room for, as Prometheus reads it."""

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric

from picker.server.transport import Server


class ConnectionMetrics:
    """Over all ports together; `servers` may grow."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def collect(self) -> Iterator[Metric]:
        """Its one family."""
        refused = sum(server.refused for server in self._servers)
        yield CounterMetricFamily("picker_connections_refused", "Connections that there was no room for.", refused)
