"""The pools of one picker process: which of them a stream is about, and whose flight the access log speaks of.

A stream names its pool, first found first: by the gRPC metadata `x-picker-pool` that the proxy's configuration adds, by
the port on which it came, by a request header if the operator trusts one, and where there is one pool only, by that.
"""

from collections.abc import Iterable, Mapping

from picker.exchange import decode, keys
from picker.exchange.access_log import AccessRecord
from picker.exchange.failures import Refusal, bad_request
from picker.server.service import Service


class Pools:
    """At least one service by its pool's name, in the order of their lanes (`served_pool.Lane`)."""

    def __init__(self, services: Mapping[str, Service], header: str = "") -> None:
        """`header`: name of the request header that may name the pool; empty for none."""
        self._services = dict(services)
        self._lanes = list(services.values())
        self._header = header.lower()
        self.first = self._lanes[0]
        """Where what belongs to no pool is counted."""
        # The workers of all pools, and those of one.
        self._numbers = self.first.router.settings.workers
        self._workers = self._numbers // len(self._lanes)

    def of_stream(self, port: str, metadata: Iterable[tuple[str, str | bytes]], message: bytes) -> Service | Refusal:
        """The service of a stream that came on the port of pool `port` (empty: of no pool) and began with `message`."""
        name: str | bytes = ""
        for key, value in metadata:
            if key == keys.POOL:
                name = value
                break
        name = name or port
        if not name and self._header:
            name = self._by_header(message)
        if not name:
            return self.first if len(self._lanes) == 1 else _unknown("The request names none of this picker's pools.")
        service = self._services.get(name) if isinstance(name, str) else None
        return service or _unknown("This picker does not serve the pool that the request names.")

    def _by_header(self, message: bytes) -> str:
        heard = decode.message(message)
        return "" if heard is None else heard.headers.get(self._header, "")

    # ------------------------------------------------------------------ the access log, which knows no pools

    def access_log_opened(self) -> None:
        """An Envoy connected its access log."""
        for service in self._lanes:
            service.access_log_opened()

    def access_log_closed(self) -> None:
        """An Envoy's access log broke off."""
        for service in self._lanes:
            service.access_log_closed()

    def doubt(self) -> None:
        """Another worker's access log broke off."""
        for service in self._lanes:
            service.doubt()

    def logged(self, record: AccessRecord) -> None:
        """Envoy's access log speaks of a request: its pool follows from its flight."""
        pool = 0 if record.flight is None else record.flight % self._numbers // self._workers
        self._lanes[pool].logged(record)


def _unknown(message: str) -> Refusal:
    return bad_request(message, status=404, code="pool_not_found")
