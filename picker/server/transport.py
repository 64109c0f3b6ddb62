"""The grpc.aio transport: raw bytes between gRPC streams and the sans-I/O service."""

import asyncio
import concurrent.futures
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from picker.exchange.access_log import Unread, decode
from picker.requests.request import Request
from picker.server.conversation import Conversation
from picker.server.service import Service

log = structlog.get_logger(__name__)

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"
ALWAYS_SERVING = ("liveness",)
READY_NAMES = ("", "readiness", EXT_PROC, "inference-extension")
"""Health names of the contract that follow readiness; `liveness` serves from start to end."""

Context = grpc.aio.ServicerContext[Any, Any]

OPTIONS = (
    ("grpc.max_concurrent_streams", 100_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.max_ping_strikes", 0),
)


@dataclass(slots=True)
class _Stream:
    """`listening`: it waits for Envoy, all that it had to say is said. `left`: it is being handed back."""

    conversation: Conversation
    listening: bool = False
    left: bool = False


class Streams:
    """Every open ext_proc stream, so that a shutdown can hand them back."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: dict[asyncio.Task[Any], _Stream] = {}
        self._leaving = False
        self._empty = asyncio.Event()
        self._empty.set()
        # Tokenising a long prompt takes milliseconds; two threads keep it off the loop without starving it.
        self._readers = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="tokenise")

    def __len__(self) -> int:
        return len(self._open)

    async def process(self, _: object, context: Context) -> None:
        """ExternalProcessor.Process: one stream, one HTTP request."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        metrics, began = self._service.metrics, self._service.clock()
        stream = self._open[task] = _Stream(Conversation(self._service))
        self._empty.clear()
        metrics.streams_inflight += 1
        code = "OK"
        try:
            await self._converse(stream, context)
        except asyncio.CancelledError:
            if not stream.left:
                code = "CANCELLED"
                raise
            # Handed back: end with OK, on which Envoy lets the running answer go on.
            task.uncancel()
        except Exception as error:
            code = "INTERNAL"
            log.error("stream failed", exc_info=error)
            raise
        finally:
            del self._open[task]
            if not self._open:
                self._empty.set()
            stream.conversation.close()
            metrics.streams_inflight -= 1
            metrics.streams.add(code)
            metrics.stream_seconds.observe(self._service.clock() - began)

    async def _converse(self, stream: _Stream, context: Context) -> None:
        loop, conversation = asyncio.get_running_loop(), stream.conversation
        while not (conversation.done or (self._leaving and conversation.leave())):
            stream.listening = True
            message = await context.read()
            stream.listening = False
            if message is grpc.aio.EOF:
                return
            replies = conversation.receive(message)
            if conversation.slow is not None:
                result: Request | Exception
                try:
                    result = await loop.run_in_executor(self._readers, self._service.reader.finish, conversation.slow)
                except Exception as error:
                    result = error
                replies = conversation.resume(result)
            for reply in replies:
                await context.write(reply)

    def hand_back(self) -> int:
        """End with OK every stream that can be left without loss, now and from now on; returns how many cannot yet."""
        self._leaving = True
        for task, stream in self._open.items():
            # One that still has replies to write leaves by itself once they are written.
            if stream.listening and not stream.left and stream.conversation.leave():
                stream.left = True
                task.cancel()
        return sum(not stream.left for stream in self._open.values())

    async def ended(self) -> None:
        """Wait until no stream is open."""
        await self._empty.wait()

    def close(self) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)


class AccessLogs:
    """AccessLogService.StreamAccessLogs: Envoy tells first bytes and ends."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def stream(self, _: object, context: Context) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._open.add(task)
        self._service.access_log_opened()
        unread = Unread()
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for record in decode(message, unread):
                    self._service.logged(record)
                if unread.messages:
                    self._service.metrics.log_records.add("unreadable", by=unread.messages)
                    unread.messages = 0
        except asyncio.CancelledError:
            if not self._closing:
                raise
            task.uncancel()
        finally:
            self._open.discard(task)
            self._service.access_log_closed()
        return b""

    def close(self) -> None:
        """End every log stream with OK: Envoy never would, and connects its next record elsewhere."""
        self._closing = True
        for task in self._open:
            task.cancel()


class Health:
    """grpc.health.v1 under all the names that gateways and charts ask for."""

    def __init__(self) -> None:
        self.servicer = HealthServicer()

    async def ready(self, yes: bool) -> None:
        """Readiness on or off; liveness stays on."""
        status = health_pb2.HealthCheckResponse
        for name in ALWAYS_SERVING:
            await self.servicer.set(name, status.SERVING)
        for name in READY_NAMES:
            await self.servicer.set(name, status.SERVING if yes else status.NOT_SERVING)


def ext_proc_server(streams: Streams, logs: AccessLogs, health: Health) -> grpc.aio.Server:
    """A server for Process, the access log and health, without ports yet."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                EXT_PROC, {"Process": grpc.stream_stream_rpc_method_handler(_coroutine(streams.process))}
            ),
            grpc.method_handlers_generic_handler(
                ACCESS_LOG, {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(_coroutine(logs.stream))}
            ),
        )
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    return server


def health_server(health: Health) -> grpc.aio.Server:
    """A server for health alone, plain, as kubelets ask."""
    server = grpc.aio.server(options=OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    return server


def _coroutine(behaviour: Callable[[object, Context], Awaitable[object]]) -> Any:
    """Types only: the stubs know synchronous behaviours alone."""
    return behaviour
