"""grpcio's client against a socket with a `Connection` behind it."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from echo_client import given, stream, taken, unary
from echo_server import EchoServer, echo_server

from picker.wire.events import Reason, StreamEnded

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture
async def served() -> AsyncIterator[tuple[grpc.aio.Channel, set[EchoServer]]]:
    async with echo_server() as (port, live), grpc.aio.insecure_channel(f"127.0.0.1:{port}", UNLIMITED) as channel:
        yield channel, live


Served = tuple[grpc.aio.Channel, set[EchoServer]]


async def heard(live: set[EchoServer], end: StreamEnded) -> None:
    (server,) = live
    while end not in server.ended:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [0, 1, 1000, 16_379, 16_380, 100_000, 5_000_000])
async def test_a_message_of_any_size_comes_back(served: Served, size: int) -> None:
    message = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    assert await unary(served[0])(message[:size]) == message[:size]


async def test_streams_keep_their_order_side_by_side(served: Served) -> None:
    sent = [[f"{stream} {index}".encode() * 50 for index in range(200)] for stream in range(20)]
    call = stream(served[0])
    got = await asyncio.gather(*(taken(call(given(each))) for each in sent))
    assert got == sent


async def test_more_is_answered_than_any_window_holds(served: Served) -> None:
    sent = [bytes([index]) * 300_000 for index in range(20)]
    got = await taken(stream(served[0], "/test.Echo/Twice")(given(sent)))
    assert got == [each for each in sent for _ in range(2)]


async def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await unary(served[0], "/no.Such/Method")(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert raised.value.details() == "no such method"


async def test_a_deadline_ends_the_call_on_both_sides(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await unary(served[0], "/test.Echo/Never")(b"", timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (server,) = served[1]
    while not server.ended:
        await asyncio.sleep(0.01)
    assert server.connection.open_streams == 0


async def test_a_cancelled_call_is_heard_of(served: Served) -> None:
    call = stream(served[0])()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    call.cancel()
    await heard(served[1], StreamEnded(1, Reason.RESET))


async def test_a_call_may_end_before_its_client_is_done(served: Served) -> None:
    call = stream(served[0], "/test.Echo/Early")()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_compressed_messages_are_refused_as_unimplemented(served: Served) -> None:
    method = unary(served[0])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(b"x" * 10_000, compression=grpc.Compression.Gzip)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_too_large_is_resource_exhausted_and_the_next_call_is_served(served: Served) -> None:
    method = unary(served[0])
    assert await method(b"before") == b"before"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await method(b"", metadata=[("x-large", "x" * 40_000)])
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await method(b"after") == b"after"


async def test_draining_lets_the_running_call_end_and_sends_new_ones_elsewhere(served: Served) -> None:
    channel, live = served
    call = stream(channel)()
    await call.write(b"one")
    assert await call.read() == b"one"
    (draining,) = live
    draining.drain()
    assert await unary(channel)(b"new") == b"new"
    await call.write(b"two")
    assert await call.read() == b"two"
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    while draining in live:
        await asyncio.sleep(0.01)
