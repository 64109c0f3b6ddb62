"""The gRPC server in this process, by every transport, asked over real sockets by a gRPC client."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio
from ext_proc_messages import FDS, NONE, SSE, request_body, request_headers, response_body, response_headers
from grpc_health.v1 import health_pb2, health_pb2_grpc
from small_service import ADDRESSES, CHAT, POST, Clock, in_flight, make_service

from picker.exchange.decode import BodyMode
from picker.proto.access_log_pb2 import StreamAccessLogsMessage
from picker.proto.ext_proc_pb2 import ProcessingResponse as Reply
from picker.requests.reader import Draft
from picker.requests.request import Request
from picker.server.conversation import Conversation
from picker.server.health import READY_NAMES, Health
from picker.server.pools import Pools
from picker.server.service import Service
from picker.server.streams import ACCESS_LOG, EXT_PROC, AccessLogs, Streams
from picker.server.transport import TRANSPORTS, Door, Ears, Limits, Server, Transport, open_server

Process: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Log: TypeAlias = "grpc.aio.StreamUnaryCall[bytes, bytes]"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
EOF = grpc.aio.EOF
ANY_PORT, LIMITS = Door("127.0.0.1", 0), Limits()


@dataclass
class Served:
    """A listening server and a channel to it."""

    service: Service
    streams: Streams
    logs: AccessLogs
    health: Health
    server: Server
    channel: grpc.aio.Channel

    def process(self, **more: Any) -> Process:
        """A new ext_proc stream."""
        return process(self.channel, **more)

    async def ask(self, response: BodyMode = NONE) -> Process:
        """A stream whose request was picked for; its replies are read."""
        call = self.process()
        await call.write(request_headers(POST, response=response))
        await call.write(request_body(CHAT, end=True))
        assert Reply.FromString(await heard(call)).HasField("request_headers")
        assert Reply.FromString(await heard(call)).HasField("request_body")
        return call

    def log(self) -> Log:
        call: Log = self.channel.stream_unary(f"/{ACCESS_LOG}/StreamAccessLogs")()
        return call


def process(channel: grpc.aio.Channel, **more: Any) -> Process:
    call: Process = channel.stream_stream(f"/{EXT_PROC}/Process")(**more)
    return call


async def read(call: Process) -> object:
    return await asyncio.wait_for(call.read(), 10)


async def heard(call: Process) -> bytes:
    message = await read(call)
    assert isinstance(message, bytes)
    return message


async def code(call: grpc.aio.Call) -> grpc.StatusCode:
    return await asyncio.wait_for(call.code(), 10)


async def empty(served: Served) -> None:
    await asyncio.wait_for(served.streams.ended(), 10)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


@contextlib.asynccontextmanager
async def serving(
    transport: Transport, pools: Pools, health: Health, pool: str = "", limits: Limits = LIMITS
) -> AsyncIterator[Served]:
    streams, logs = Streams(pools), AccessLogs(pools)
    server = await open_server(transport, ANY_PORT, health, Ears(streams, logs, pool), limits)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Served(pools.first, streams, logs, health, server, channel)
    streams.close()
    await server.stop(0)


@pytest_asyncio.fixture
async def served(transport: Transport) -> AsyncIterator[Served]:
    health = Health()
    health.ready(True)
    async with serving(transport, Pools({"default": make_service(Clock())}), health) as running:
        yield running


async def test_a_stream_is_answered_and_ends_with_ok_when_envoy_closes_it(served: Served) -> None:
    call = await served.ask()
    await call.write(response_headers(SSE))
    assert Reply.FromString(await heard(call)).HasField("response_headers")
    await call.done_writing()
    assert await read(call) is EOF
    assert await code(call) is grpc.StatusCode.OK


async def test_a_refusal_ends_the_stream_with_ok(served: Served) -> None:
    call = served.process()
    await call.write(request_headers(POST))
    await call.write(request_body(b"{", end=True))
    assert Reply.FromString(await heard(call)).immediate_response.status.code == 400
    assert await read(call) is EOF
    assert await code(call) is grpc.StatusCode.OK


async def test_a_stream_that_is_cancelled_releases_its_flight(served: Served) -> None:
    call = await served.ask(response=FDS)
    assert in_flight(served.service) == 1
    call.cancel()
    await empty(served)
    assert in_flight(served.service) == 0


async def test_a_long_prompt_is_read_beside_the_loop(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    finish = served.service.reader.finish

    def elsewhere(draft: Draft) -> Request:
        import threading

        threads.append(threading.current_thread().name)
        return finish(draft)

    monkeypatch.setattr(served.service.reader, "is_slow", lambda _: True)
    monkeypatch.setattr(served.service.reader, "finish", elsewhere)
    await served.ask()
    assert threads[0].startswith("tokenise")


async def test_a_reading_beside_the_loop_that_fails_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(served.service.reader, "is_slow", lambda _: True)
    monkeypatch.setattr(served.service.reader, "finish", broken)
    call = served.process()
    await call.write(request_headers(POST))
    await call.write(request_body(CHAT, end=True))
    assert Reply.FromString(await heard(call)).immediate_response.status.code == 500


async def test_what_arrives_while_a_prompt_is_read_is_heard_after_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, finish = threading.Event(), served.service.reader.finish
    monkeypatch.setattr(served.service.reader, "is_slow", lambda _: True)
    monkeypatch.setattr(served.service.reader, "finish", lambda draft: go_on.wait(10) and finish(draft))
    call = served.process()
    await call.write(request_headers(POST))
    await call.write(request_body(CHAT, end=True))
    await call.write(response_headers(SSE))
    await call.done_writing()
    go_on.set()
    replies = [Reply.FromString(await heard(call)).WhichOneof("response") for _ in range(3)]
    assert replies == ["request_headers", "request_body", "response_headers"]
    assert await code(call) is grpc.StatusCode.OK


async def test_a_stream_that_goes_away_while_its_prompt_is_read_is_not_picked_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, finish = threading.Event(), threading.Event(), served.service.reader.finish

    def slowly(draft: Draft) -> Request:
        begun.set()
        go_on.wait(10)
        return finish(draft)

    monkeypatch.setattr(served.service.reader, "is_slow", lambda _: True)
    monkeypatch.setattr(served.service.reader, "finish", slowly)
    call = served.process()
    await call.write(request_headers(POST))
    await call.write(request_body(CHAT, end=True))
    assert await asyncio.to_thread(begun.wait, 10)
    call.cancel()
    await empty(served)
    go_on.set()
    await (await served.ask()).done_writing()
    assert len(served.service.router.log.last(10)) == 1


async def test_a_stream_that_fails_ends_alone_and_is_counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await served.ask(response=FDS)
    with monkeypatch.context() as broken:
        broken.setattr(Conversation, "receive", lambda *_: 1 / 0)
        call = served.process()
        await call.write(request_headers(POST))
        assert await code(call) in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    await other.write(response_headers(SSE))
    assert Reply.FromString(await heard(other)).HasField("response_headers")
    (family,) = served.service.metrics.streams.collect()
    assert [sample.labels for sample in family.samples] == [{"code": "INTERNAL"}]


async def test_a_stream_whose_time_is_up_releases_its_flight(served: Served) -> None:
    call = served.process(timeout=0.5)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.write(request_headers(POST, response=FDS))
        await call.write(request_body(CHAT, end=True))
    assert await code(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    await empty(served)
    assert in_flight(served.service) == 0


async def test_a_message_that_is_longer_than_allowed_is_refused(transport: Transport) -> None:
    pools = Pools({"default": make_service(Clock())})
    async with serving(transport, pools, Health(), limits=Limits(receive=1000)) as served:
        call = served.process()
        await call.write(request_body(b" " * 1000, end=True))
        assert await code(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_server_that_stops_lets_what_runs_come_to_its_end_and_then_takes_nothing(served: Served) -> None:
    running = await served.ask(response=FDS)
    stopping = asyncio.create_task(served.server.stop(30))
    await running.write(response_headers(SSE))
    await read(running)
    await running.write(response_body(b"last", end=True))
    assert b"last" in await heard(running)
    assert await code(running) is grpc.StatusCode.OK
    await asyncio.wait_for(stopping, 10)
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", served.server.port)


async def test_a_server_that_stops_at_once_ends_what_runs(served: Served) -> None:
    running = await served.ask(response=FDS)
    await asyncio.wait_for(served.server.stop(0), 10)
    assert await code(running) is not grpc.StatusCode.OK
    await empty(served)


async def test_streams_whose_answers_do_not_pass_are_handed_back_with_ok(served: Served) -> None:
    unseen, echoed = await served.ask(), await served.ask(response=FDS)
    assert served.streams.hand_back() == 1
    assert await read(unseen) is EOF
    assert await code(unseen) is grpc.StatusCode.OK
    await echoed.write(response_headers(SSE))
    await read(echoed)
    await echoed.write(response_body(b"last", end=True))
    assert b"last" in await heard(echoed)
    await empty(served)
    assert await code(echoed) is grpc.StatusCode.OK


async def test_a_request_that_is_still_being_read_at_a_hand_back_is_picked_for_first(served: Served) -> None:
    call = served.process()
    await call.write(request_headers(POST))
    while not len(served.streams):
        await asyncio.sleep(0)
    assert served.streams.hand_back() == 1
    await call.write(request_body(CHAT, end=True))
    assert Reply.FromString(await heard(call)).HasField("request_headers")
    assert Reply.FromString(await heard(call)).HasField("request_body")
    assert await read(call) is EOF
    assert await code(call) is grpc.StatusCode.OK


async def test_an_access_log_is_heard_and_ends_with_ok_when_closed(served: Served) -> None:
    log = served.log()
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.add().request.request_id = "somebody"
    await log.write(message.SerializeToString())
    while not served.service.metrics.log_records.total():
        await asyncio.sleep(0)
    assert served.service.access_log_live
    served.logs.close()
    assert await asyncio.wait_for(log, 10) == b""
    assert not served.service.access_log_live


async def test_an_access_log_that_cannot_be_read_is_counted(served: Served) -> None:
    log = served.log()
    await log.write(b"\xff\xff")
    while not served.service.metrics.log_records.total():
        await asyncio.sleep(0)
    (family,) = served.service.metrics.log_records.collect()
    assert [sample.labels for sample in family.samples] == [{"result": "unreadable"}]
    log.cancel()


async def test_health_follows_readiness_under_every_name_but_liveness(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel)

    async def status(name: str) -> int:
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)

    assert [await status(name) for name in ("liveness", *READY_NAMES)] == [SERVING] * 5
    served.health.ready(False)
    assert await status("liveness") == SERVING
    assert [await status(name) for name in READY_NAMES] == [NOT_SERVING] * 4


async def test_a_watched_name_is_told_at_once_and_at_every_change(served: Served) -> None:
    call = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service="readiness"))

    async def told() -> object:
        return (await asyncio.wait_for(call.read(), 10)).status

    assert await told() == SERVING
    served.health.ready(True)
    served.health.ready(False)
    assert await told() == NOT_SERVING
    served.health.close()
    assert await read(call) is EOF
    assert await code(call) is grpc.StatusCode.OK


async def health_of(transport: Transport, health: Health, name: str) -> int:
    server = await open_server(transport, ANY_PORT, health)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status = int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)
    await server.stop(0)
    return status


@pytest.mark.parametrize(("ready", "status"), [(True, SERVING), (False, NOT_SERVING)])
async def test_a_health_name_that_nobody_knows_follows_readiness(
    transport: Transport, ready: bool, status: int
) -> None:
    health = Health()
    health.ready(ready)
    assert await health_of(transport, health, "my-own-probe") == status


async def test_with_an_election_a_health_name_that_nobody_knows_is_unknown(transport: Transport) -> None:
    health = Health(strict=True)
    health.ready(True)
    assert await health_of(transport, health, "my-own-probe") == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert await health_of(transport, health, "readiness") == SERVING


async def test_the_port_of_health_alone_serves_nothing_else(transport: Transport) -> None:
    server = await open_server(transport, ANY_PORT, Health())
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = process(channel)
        assert await code(call) is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_a_port_that_is_taken_is_told(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"."):
        await open_server(transport, Door("127.0.0.1", taken.getsockname()[1]), Health())


async def test_the_port_of_a_pool_serves_that_pool(transport: Transport) -> None:
    chat, embed = make_service(Clock()), make_service(Clock())
    async with serving(transport, Pools({"chat": chat, "embed": embed}), Health(), pool="embed") as served:
        await served.ask(response=FDS)
        assert (in_flight(chat), in_flight(embed)) == (0, 1)


async def test_a_stream_that_names_no_pool_of_ours_is_refused_and_ends_with_ok(served: Served) -> None:
    call = served.process(metadata=[("x-picker-pool", "elsewhere")])
    await call.write(request_headers(POST))
    assert Reply.FromString(await heard(call)).immediate_response.status.code == 404
    assert await read(call) is EOF
    assert await code(call) is grpc.StatusCode.OK
    await empty(served)


async def test_the_same_request_id_twice_is_two_flights(served: Served) -> None:
    calls = [await served.ask(response=FDS) for _ in range(2)]
    assert in_flight(served.service) == 2
    assert {d.addresses[0] for d in served.service.router.log.last(2)} <= set(ADDRESSES)
    calls[0].cancel()
    while in_flight(served.service) == 2:
        await asyncio.sleep(0)
    assert in_flight(served.service) == 1
