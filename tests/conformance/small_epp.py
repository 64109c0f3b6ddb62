"""An honest EPP in this process, and what makes it a wrong one: each wrong EPP breaks one rule on purpose."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from picker.conformance.epp import LIMITS, Epp
from picker.exchange.events import RequestArrived
from picker.exchange.failures import no_endpoints
from picker.exchange.machine import Answer, Exchange, ExchangeSettings
from picker.proto.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

POOL = ("10.0.0.1:3000", "10.0.0.1:3002", "10.0.0.2:3000")
NAMES = ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension")
TESTING = ExchangeSettings(
    selection_header="test-epp-endpoint-selection", served_header="x-conformance-test-served-endpoint"
)

Context = grpc.aio.ServicerContext[Any, Any]
Replies = list[ProcessingResponse]
Twist = Callable[[ProcessingRequest, Replies], Iterable[ProcessingResponse]]


@dataclass(frozen=True)
class SmallEpp:
    """Picks the first endpoint that is allowed, the next ones as fallbacks.

    `twist` may spoil its replies, or end the stream by StopIteration; `restrict` the subset that it goes by; with
    `errors` it ends refused streams with a gRPC error.
    """

    pool: tuple[str, ...] = POOL
    settings: ExchangeSettings = TESTING
    names: tuple[str, ...] = NAMES
    restrict: Callable[[RequestArrived], tuple[str, ...] | None] = lambda arrived: arrived.subset
    twist: Twist = lambda said, replies: replies
    errors: bool = False

    async def process(self, _: object, context: Context) -> None:
        exchange = Exchange(self.settings)
        while not exchange.done and (message := await context.read()) is not grpc.aio.EOF:
            for event in exchange.receive(message):
                if isinstance(event, RequestArrived):
                    await self._decide(exchange, event, context)
            replies = [ProcessingResponse.FromString(data) for data in exchange.data_to_send()]
            try:
                said = self.twist(ProcessingRequest.FromString(message), replies)
            except StopIteration:
                return
            for reply in said:
                await context.write(reply.SerializeToString())

    async def _decide(self, exchange: Exchange, arrived: RequestArrived, context: Context) -> None:
        subset = self.restrict(arrived)
        found = [each for each in self.pool if subset is None or {each, each.partition(":")[0]} & set(subset)]
        if found:
            exchange.answer(Answer(tuple(found)))
        elif self.errors:
            await context.abort(grpc.StatusCode.INTERNAL, "no endpoints")
        else:
            exchange.refuse(no_endpoints())


@contextlib.asynccontextmanager
async def serving(small: SmallEpp, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
    """The port of 127.0.0.1 where this EPP and its health service listen."""
    server, health = grpc.aio.server(options=LIMITS), HealthServicer()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(small.process)
    service = grpc.method_handlers_generic_handler(NAMES[3], {"Process": handler})
    server.add_generic_rpc_handlers((service,))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name in small.names:
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def listening(small: SmallEpp) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """Its address and a channel to it."""
    async with serving(small) as port:
        address = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(address, options=LIMITS) as channel:
            yield address, channel


@contextlib.asynccontextmanager
async def served(small: SmallEpp, patience_s: float = 5.0) -> AsyncIterator[Epp]:
    """The EPP as the pack gets to see it, with a twin whose pool is empty."""
    async with listening(small) as (door, channel), listening(replace(small, pool=())) as (_, empty):
        yield Epp(channel, POOL, patience_s=patience_s, health=channel, empty=empty, door=door, testing=True)
