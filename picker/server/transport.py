"""The grpc.aio transport: raw bytes between gRPC streams and the sans-I/O service."""

import asyncio
import concurrent.futures
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from picker.exchange import encode
from picker.exchange.access_log import Unread, decode
from picker.exchange.failures import Refusal
from picker.requests.request import Request
from picker.server.conversation import Conversation
from picker.server.pools import Pools
from picker.server.service import Service

log = structlog.get_logger(__name__)

EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"
ALWAYS_SERVING = ("liveness",)
READY_NAMES = ("", "readiness", EXT_PROC, "inference-extension")
"""Health names of the contract that follow readiness; `liveness` serves from start to end."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest gRPC messages, in bytes; Envoy's are bounded by its own buffer limits."""

    receive: int = 64 << 20
    send: int = 64 << 20


@dataclass(slots=True)
class _Stream:
    """`listening`: it waits for Envoy, all that it had to say is said. `left`: it is being handed back.

    Its first message may be needed to know its pool; until then it has no conversation.
    """

    conversation: Conversation | None = None
    service: Service | None = None
    listening: bool = False
    left: bool = False

    def open(self, service: Service) -> Conversation:
        self.service, self.conversation = service, Conversation(service)
        service.metrics.streams_inflight += 1
        return self.conversation

    def leave(self) -> bool:
        return self.conversation is not None and self.conversation.leave()

    def close(self, code: str, began: float) -> None:
        if self.conversation is not None and self.service is not None:
            metrics = self.service.metrics
            self.conversation.close()
            metrics.streams_inflight -= 1
            metrics.streams.add(code)
            metrics.stream_seconds.observe(self.service.clock() - began)


class Streams:
    """Every open ext_proc stream, so that a shutdown can hand them back."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._open: dict[asyncio.Task[Any], _Stream] = {}
        self._leaving = False
        self._empty = asyncio.Event()
        self._empty.set()
        # Tokenising a long prompt takes milliseconds; two threads keep it off the loop without starving it.
        self._readers = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="tokenise")

    def __len__(self) -> int:
        return len(self._open)

    async def process(self, port: str, _: object, context: Context) -> None:
        """ExternalProcessor.Process: one stream, one HTTP request. `port`: the pool whose own port it is, or empty."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        began = self._pools.first.clock()
        stream = self._open[task] = _Stream()
        self._empty.clear()
        code = "OK"
        try:
            await self._converse(stream, port, context)
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
            stream.close(code, began)

    async def _converse(self, stream: _Stream, port: str, context: Context) -> None:
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        service = self._pools.of_stream(port, context.invocation_metadata() or (), first)
        if isinstance(service, Refusal):
            self._pools.first.metrics.refused("", service.status)
            await context.write(encode.immediate(service))
            return
        conversation = stream.open(service)
        await self._reply(conversation, service, first, context)
        while not (conversation.done or (self._leaving and conversation.leave())):
            stream.listening = True
            message = await context.read()
            stream.listening = False
            if message is grpc.aio.EOF:
                return
            await self._reply(conversation, service, message, context)

    async def _reply(self, conversation: Conversation, service: Service, message: bytes, context: Context) -> None:
        replies = conversation.receive(message)
        if conversation.slow is not None:
            loop = asyncio.get_running_loop()
            result: Request | Exception
            try:
                result = await loop.run_in_executor(self._readers, service.reader.finish, conversation.slow)
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
            if stream.listening and not stream.left and stream.leave():
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

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._open: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def stream(self, _: object, context: Context) -> bytes:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._open.add(task)
        self._pools.access_log_opened()
        unread = Unread()
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                for record in decode(message, unread):
                    self._pools.logged(record)
                if unread.messages:
                    self._pools.first.metrics.log_records.add("unreadable", by=unread.messages)
                    unread.messages = 0
        except asyncio.CancelledError:
            if not self._closing:
                raise
            task.uncancel()
        finally:
            self._open.discard(task)
            self._pools.access_log_closed()
        return b""

    def close(self) -> None:
        """End every log stream with OK: Envoy never would, and connects its next record elsewhere."""
        self._closing = True
        for task in self._open:
            task.cancel()


class Health:
    """grpc.health.v1 under all the names that gateways and charts ask for.

    llm-d-router answers every name there may be with its readiness, unless it elects a leader: then a name that it does
    not know is SERVICE_UNKNOWN. `strict` says which.
    """

    def __init__(self, strict: bool = False) -> None:
        self.is_ready = False
        self._strict = strict
        self.servicer = HealthServicer()
        self._of_known, self.servicer.Check = self.servicer.Check, self._check

    async def ready(self, yes: bool) -> None:
        """Readiness on or off; liveness stays on."""
        self.is_ready = yes
        status = health_pb2.HealthCheckResponse
        for name in ALWAYS_SERVING:
            await self.servicer.set(name, status.SERVING)
        for name in READY_NAMES:
            await self.servicer.set(name, status.SERVING if yes else status.NOT_SERVING)

    async def _check(self, request: Any, context: Context) -> Any:
        if request.service in (*ALWAYS_SERVING, *READY_NAMES):
            return await self._of_known(request, context)
        status = health_pb2.HealthCheckResponse
        if self._strict:
            return status(status=status.SERVICE_UNKNOWN)
        return status(status=status.SERVING if self.is_ready else status.NOT_SERVING)


def ext_proc_server(
    streams: Streams, logs: AccessLogs, health: Health, *, pool: str = "", limits: Limits = Limits()
) -> grpc.aio.Server:
    """A server for Process, the access log and health, without ports yet; its streams are of `pool` if it has one."""
    server = grpc.aio.server(options=_options(limits))
    process = functools.partial(streams.process, pool)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                EXT_PROC, {"Process": grpc.stream_stream_rpc_method_handler(_coroutine(process))}
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
    server = grpc.aio.server(options=_options(Limits()))
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    return server


def _options(limits: Limits) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_concurrent_streams", 100_000),
        ("grpc.max_receive_message_length", limits.receive),
        ("grpc.max_send_message_length", limits.send),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.max_ping_strikes", 0),
    )


def _coroutine(behaviour: Callable[..., Awaitable[object]]) -> Any:
    """Types only: the stubs know synchronous behaviours alone."""
    return behaviour
