"""The grpc.aio transport: raw bytes between its streams and ours, a task for each."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog

from picker.requests.request import Request
from picker.server.health import HEALTH, Health, asked
from picker.server.streams import ACCESS_LOG, EXT_PROC, AccessLogs, LogStream, ProcessStream, Streams
from picker.server.tls import credentials
from picker.server.transport import Door, Ears, Limits

log = structlog.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class _Task:
    """The task of a stream, which `leave` ends with OK. `listening`: all that it had to say is said."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self.task: asyncio.Task[Any] = task
        self.listening = self.left = False
        self.stream: ProcessStream | None = None

    def leave(self) -> bool:
        # One that still has replies to write leaves by itself once they are written.
        if not self.left and self.listening and (self.stream is None or self.stream.leave()):
            self.left = True
            self.task.cancel()
        return self.left


class _Process:
    """ExternalProcessor.Process of one port."""

    def __init__(self, streams: Streams, pool: str) -> None:
        self._streams, self._pool = streams, pool

    async def stream(self, _: object, context: Context) -> None:
        carrier = _Task()
        stream = carrier.stream = ProcessStream(self._streams, carrier, self._pool, context.invocation_metadata() or ())
        code = "OK"
        try:
            await self._converse(carrier, stream, context)
        except asyncio.CancelledError:
            if not carrier.left:
                code = "CANCELLED"
                raise
            # Handed back: end with OK, on which Envoy lets the running answer go on.
            carrier.task.uncancel()
        except Exception as error:
            code = "INTERNAL"
            log.error("stream failed", exc_info=error)
            raise
        finally:
            stream.close(code)

    async def _converse(self, carrier: _Task, stream: ProcessStream, context: Context) -> None:
        while True:
            carrier.listening = True
            message = await context.read()
            carrier.listening = False
            if message is grpc.aio.EOF:
                return
            replies = stream.receive(message)
            if (slow := stream.slow) is not None:
                replies = stream.resume(await self._read(slow))
            for reply in replies:
                await context.write(reply)
            if stream.done:
                return

    async def _read(self, slow: Callable[[], Request]) -> Request | Exception:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._streams.readers, slow)
        except Exception as error:
            return error


class _Logs:
    """AccessLogService.StreamAccessLogs."""

    def __init__(self, logs: AccessLogs) -> None:
        self._logs = logs

    async def stream(self, _: object, context: Context) -> bytes:
        carrier = _Task()
        # Whatever it is at, nobody waits for a log.
        carrier.listening = True
        stream = LogStream(self._logs, carrier)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                stream.receive(message)
        except asyncio.CancelledError:
            if not carrier.left:
                raise
            carrier.task.uncancel()
        finally:
            stream.close()
        return b""


class _Health:
    """Health.Check and Health.Watch."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def check(self, message: bytes, _: Context) -> bytes:
        return self._health.answer(asked(message))

    async def watch(self, message: bytes, context: Context) -> None:
        name, last, news = asked(message), b"", asyncio.Event()
        self._health.watch(news.set)
        try:
            while not self._health.closed:
                news.clear()
                if (answer := self._health.answer(name)) != last:
                    await context.write(answer)
                last = answer
                await news.wait()
        finally:
            self._health.unwatch(news.set)


class GrpcioServer:
    """A grpc.aio server on its port."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server, self.port, self.refused = server, port, 0

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """No new streams; ends when the last running one does, at the latest after `grace_s` seconds."""
        await self._server.stop(grace_s)


def grpcio_server(door: Door, health: Health, ears: Ears | None, limits: Limits) -> GrpcioServer:
    """As `transport.open_server`."""
    server, checks = grpc.aio.server(options=_options(limits)), _Health(health)
    methods: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {
        HEALTH: {
            "Check": grpc.unary_unary_rpc_method_handler(_coroutine(checks.check)),
            "Watch": grpc.unary_stream_rpc_method_handler(_coroutine(checks.watch)),
        }
    }
    if ears is not None:
        process, logs = _Process(ears.streams, ears.pool), _Logs(ears.logs)
        methods[EXT_PROC] = {"Process": grpc.stream_stream_rpc_method_handler(_coroutine(process.stream))}
        methods[ACCESS_LOG] = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(_coroutine(logs.stream))}
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, handlers) for name, handlers in methods.items())
    )
    address = f"{door.host}:{door.port}"
    try:
        if door.plain:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials(door.certificate, door.reload))
    except RuntimeError as error:  # what grpc raises for a port that is taken
        raise OSError(str(error)) from error
    return GrpcioServer(server, port)


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
