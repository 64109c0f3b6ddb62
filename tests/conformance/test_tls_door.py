"""TLS as a gateway does it: any certificate, HTTP/2 by ALPN; and gRPC through the door."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from small_epp import POOL, SmallEpp, serving

from picker.conformance import tls
from picker.conformance.case import Broken, NotAsked
from picker.conformance.epp import Epp
from picker.server.tls import self_signed


async def seen(epp: Epp) -> list[str]:
    """What the cases about TLS found wrong."""
    found = []
    for case in tls.PACK.cases:
        try:
            await case.check(epp)
        except Broken as broken:
            found.append(f"{case.name}: {broken}")
    return found


@contextlib.asynccontextmanager
async def through_the_door(port: int) -> AsyncIterator[Epp]:
    async with tls.plain_door("127.0.0.1", port) as door, grpc.aio.insecure_channel(door) as channel:
        yield Epp(channel, POOL, patience_s=1.0, address=("127.0.0.1", port))


async def test_an_epp_with_a_certificate_of_its_own_making_is_asked_over_tls() -> None:
    credentials = grpc.ssl_server_credentials([self_signed()])
    async with serving(SmallEpp(), credentials) as port, through_the_door(port) as epp:
        assert await seen(epp) == []


async def test_an_epp_without_tls_fails_both_cases() -> None:
    async with serving(SmallEpp()) as port, through_the_door(port) as epp:
        assert [each.partition(":")[0] for each in await seen(epp)] == [
            "tls-speaks-http-2",
            "tls-takes-any-server-name",
            "tls-carries-requests",
        ]


async def test_a_server_that_does_not_offer_h2_fails(tmp_path: Path) -> None:
    key, certificate = self_signed()
    (tmp_path / "both.pem").write_bytes(key + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with through_the_door(port) as epp:
            assert "tls-speaks-http-2: ALPN gives None" in await seen(replace(epp, patience_s=0.5))


async def test_nothing_is_asked_where_there_is_no_tls() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        for case in tls.PACK.cases:
            with pytest.raises(NotAsked, match="without TLS"):
                await case.check(Epp(channel))
