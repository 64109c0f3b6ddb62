"""How many connections a port of the lean transport has room for, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from wire_peer import settings

from picker.server.connections import ConnectionMetrics
from picker.server.health import Health
from picker.server.lean_server import LeanServer, lean_server
from picker.server.transport import Door, Limits
from picker.wire.frames import HEAD, PREFACE, Kind

ROOM = 2


@pytest_asyncio.fixture
async def server() -> AsyncIterator[LeanServer]:
    made = await lean_server(Door("127.0.0.1", 0), Health(), None, Limits(connections=ROOM))
    await made.start()
    yield made
    await made.stop(0)


async def connected(server: LeanServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(PREFACE + settings())
    return reader, writer


async def kinds(reader: asyncio.StreamReader) -> list[int]:
    """What the server said until it closed the connection."""
    found, said = [], await reader.read()
    while said:
        word, _, _ = HEAD.unpack_from(said)
        found.append(word & 0xFF)
        said = said[HEAD.size + (word >> 8) :]
    return found


def refused(server: LeanServer) -> float:
    (family,) = ConnectionMetrics([server]).collect()
    return family.samples[0].value


async def test_a_connection_too_many_is_told_goodbye_and_counted(server: LeanServer) -> None:
    kept = [await connected(server) for _ in range(ROOM)]
    for reader, _ in kept:
        await reader.readexactly(HEAD.size)
    reader, _ = await connected(server)
    assert Kind.GOAWAY in await kinds(reader)
    assert refused(server) == 1
    assert not any(reader.at_eof() for reader, _ in kept)


async def test_there_is_room_again_once_one_is_gone(server: LeanServer) -> None:
    for _ in range(3 * ROOM):
        reader, writer = await connected(server)
        await reader.readexactly(HEAD.size)
        writer.close()
        while len(server):
            await asyncio.sleep(0.01)
    assert refused(server) == 0


async def test_a_crowd_that_will_not_go_is_bounded_too(server: LeanServer) -> None:
    for _ in range(5 * ROOM):
        await connected(server)
        assert len(server) <= 3 * ROOM
