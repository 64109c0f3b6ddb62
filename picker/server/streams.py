"""The streams of one picker process, whichever transport carries their bytes: no socket and no task in here.

A transport opens a `ProcessStream` or a `LogStream` for each stream it accepts, hands over its messages in order,
writes the replies, and calls `close` once at the end, whatever happened. It gives itself as the stream's `Carrier`, so
that a shutdown can end what need not end here.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Protocol

from picker.exchange import encode
from picker.exchange.access_log import Unread, decode
from picker.exchange.failures import Refusal
from picker.requests.request import Request
from picker.server.conversation import Conversation
from picker.server.pools import Pools

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"

Metadata = Iterable[tuple[str, str | bytes]]


class Carrier(Protocol):
    """What carries one stream."""

    def leave(self) -> bool:
        """End the stream with OK if nothing is lost by it, now or already; False where it must go on."""
        ...


class Streams:
    """Every open ext_proc stream, so that a shutdown can hand them back."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self.leaving = False
        # Tokenising a long prompt takes milliseconds; two threads keep it off the loop without starving it.
        self.readers = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="tokenise")
        self._open: set[Carrier] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, carrier: Carrier) -> None:
        """A stream began."""
        if not self._open:
            self._empty.clear()
        self._open.add(carrier)

    def closed(self, carrier: Carrier) -> None:
        """It is over."""
        self._open.discard(carrier)
        if not self._open:
            self._empty.set()

    def hand_back(self) -> int:
        """End with OK every stream that can be left without loss, now and from now on; returns how many cannot yet."""
        self.leaving = True
        return sum(not carrier.leave() for carrier in [*self._open])

    async def ended(self) -> None:
        """Wait until no stream is open."""
        await self._empty.wait()

    def close(self) -> None:
        """Begin no more readings."""
        self.readers.shutdown(wait=False, cancel_futures=True)


class ProcessStream:
    """ExternalProcessor.Process: one stream, one HTTP request.

    Its first message may be needed to know its pool; until then it has no conversation. While `slow` is set, nothing
    more may be received: it is to be called in `streams.readers`, and what it gives or raises goes to `resume`.
    """

    __slots__ = ("_began", "_carrier", "_conversation", "_metadata", "_port", "_refused", "_streams")

    def __init__(self, streams: Streams, carrier: Carrier, port: str, metadata: Metadata) -> None:
        """`port`: the pool whose own port it came on, or empty."""
        self._streams, self._carrier, self._port, self._metadata = streams, carrier, port, metadata
        self._conversation: Conversation | None = None
        self._refused = False
        self._began = streams.pools.first.clock()
        streams.opened(carrier)

    def receive(self, message: bytes) -> list[bytes]:
        """Take one message; give the replies to write, in order."""
        if self._conversation is not None:
            return self._conversation.receive(message)
        pools = self._streams.pools
        service = pools.of_stream(self._port, self._metadata, message)
        if isinstance(service, Refusal):
            pools.first.metrics.refused("", service.status)
            self._refused = True
            return [encode.immediate(service)]
        self._conversation = conversation = Conversation(service)
        service.metrics.streams_inflight += 1
        return conversation.receive(message)

    def relay(self, message: bytes) -> bytes | None:
        """The one reply to a message that changes nothing but what was said; None for one that is to be received."""
        return None if self._conversation is None else self._conversation.relay(message)

    @property
    def steady(self) -> bool:
        """After a message that was relayed: others like it may be answered unheard (`lean_calls.ECHOED`)."""
        return self._conversation is not None and self._conversation.steady

    @property
    def calm(self) -> bool:
        """There is nothing to do but to write the replies: neither `slow` nor `done`."""
        conversation = self._conversation
        if conversation is None or self._streams.leaving:
            return False
        return conversation.slow is None and not conversation.done

    @property
    def slow(self) -> Callable[[], Request] | None:
        """A reading that takes too long for the loop."""
        conversation = self._conversation
        if conversation is None or (draft := conversation.slow) is None:
            return None
        reader = conversation.service.reader
        return lambda: reader.finish(draft)

    def resume(self, result: Request | Exception) -> list[bytes]:
        """The slow reading ended; gives the replies to write."""
        assert self._conversation is not None  # whose reading it was
        return self._conversation.resume(result)

    @property
    def done(self) -> bool:
        """Once all replies are written, the stream is to be ended with OK."""
        conversation = self._conversation
        if conversation is None:
            return self._refused
        return conversation.done or (self._streams.leaving and conversation.leave())

    def leave(self) -> bool:
        """Hand the rest back to the proxy if nothing is lost by it; only where nothing is left to write."""
        return self._conversation is not None and self._conversation.leave()

    def close(self, code: str) -> None:
        """The stream is over; `code` is the name of a gRPC status."""
        self._streams.closed(self._carrier)
        conversation = self._conversation
        if conversation is None:
            return
        conversation.close()
        service = conversation.service
        metrics = service.metrics
        metrics.streams_inflight -= 1
        metrics.streams.add(code)
        metrics.stream_s.observe(service.clock() - self._began)


class AccessLogs:
    """Every open stream of Envoy's access log, so that a shutdown can end them: Envoy never would."""

    def __init__(self, pools: Pools) -> None:
        self.pools = pools
        self._open: set[Carrier] = set()

    def opened(self, carrier: Carrier) -> None:
        """A log began."""
        self._open.add(carrier)
        self.pools.access_log_opened()

    def closed(self, carrier: Carrier) -> None:
        """It is over."""
        self._open.discard(carrier)
        self.pools.access_log_closed()

    def close(self) -> None:
        """End every log with OK; Envoy connects its next record elsewhere."""
        for carrier in [*self._open]:
            carrier.leave()


class LogStream:
    """AccessLogService.StreamAccessLogs: Envoy tells first bytes and ends."""

    __slots__ = ("_carrier", "_logs", "_unread")

    def __init__(self, logs: AccessLogs, carrier: Carrier) -> None:
        self._logs, self._carrier, self._unread = logs, carrier, Unread()
        logs.opened(carrier)

    def receive(self, message: bytes) -> None:
        """Take one message."""
        pools, unread = self._logs.pools, self._unread
        for record in decode(message, unread):
            pools.logged(record)
        if unread.messages:
            pools.first.metrics.log_records.add("unreadable", by=unread.messages)
            unread.messages = 0

    def close(self) -> None:
        """The stream is over."""
        self._logs.closed(self._carrier)
