"""Calls of grpcio's client to an echo server, with the types that grpcio leaves open."""

from collections.abc import AsyncIterator, Iterable
from typing import TypeAlias

import grpc.aio

Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
Stream: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"


def unary(channel: grpc.aio.Channel, path: str = "/test.Echo/Unary") -> Unary:
    """A call of one message, answered by one."""
    call: Unary = channel.unary_unary(path)
    return call


def stream(channel: grpc.aio.Channel, path: str = "/test.Echo/Stream") -> Stream:
    """A call of many messages, answered by many."""
    call: Stream = channel.stream_stream(path)
    return call


async def given(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Messages as a client sends them."""
    for message in messages:
        yield message


async def taken(call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> list[bytes]:
    """All that comes back."""
    return [message async for message in call]
