"""TLS as gateways do it: HTTP/2 by ALPN, the certificate not verified; and a way for gRPC, which insists, to do so."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from picker.conformance import heard
from picker.conformance.case import Broken, NotAsked, Pack
from picker.conformance.connections import ISTIO_NAME
from picker.conformance.epp import Epp

PACK: Pack[Epp] = Pack("tls")
SOURCE = "GIE: TLS by default, self-signed"
PIECE = 1 << 16
CONNECT_S = 10.0


def unverified() -> ssl.SSLContext:
    """As a gateway that offers h2 and takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@contextlib.asynccontextmanager
async def plain_door(host: str, port: int) -> AsyncIterator[str]:
    """A local `host:port` without TLS; what connects there goes on to `host:port` with TLS."""
    context = unverified()
    open_now: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        writers = open_now[task] = [writer]
        try:
            async with asyncio.timeout(CONNECT_S):
                there, back = await asyncio.open_connection(host, port, ssl=context)
            writers.append(back)
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        except OSError:
            # The gRPC client sees its connection closed, and says so.
            return
        finally:
            writer.close()
            del open_now[task]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        ending = list(open_now)
        for writers in open_now.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*ending, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _handshake(epp: Epp, server_name: str | None) -> tuple[str | None, str | None]:
    """The protocol by ALPN and the version of TLS. Raises Broken when there is no handshake."""
    host, port = _address(epp)
    try:
        async with asyncio.timeout(epp.patience_s):
            _, writer = await asyncio.open_connection(host, port, ssl=unverified(), server_hostname=server_name)
    except (OSError, TimeoutError) as error:
        raise Broken(f"no handshake: {str(error) or type(error).__name__}") from None
    found = writer.get_extra_info("ssl_object")
    settled = found.selected_alpn_protocol(), found.version()
    writer.close()
    return settled


def _address(epp: Epp) -> tuple[str, int]:
    if epp.address is None:
        raise NotAsked("the EPP is asked without TLS")
    return epp.address


@PACK.case(SOURCE)
async def tls_speaks_http_2(epp: Epp) -> None:
    """The handshake succeeds without a client certificate and settles on h2: gateways speak nothing else to an EPP."""
    protocol, version = await _handshake(epp, None)
    if protocol != "h2":
        raise Broken(f"ALPN gives {protocol}")
    if version not in ("TLSv1.2", "TLSv1.3"):
        raise Broken(f"the handshake settles on {version}")


@PACK.case("Istio: server name of the EPP's cluster")
async def tls_takes_any_server_name(epp: Epp) -> None:
    """A handshake for a server name that no certificate has, and that is no host name, succeeds."""
    await _handshake(epp, ISTIO_NAME)


@PACK.case(SOURCE)
async def tls_carries_requests(epp: Epp) -> None:
    """A request over TLS is picked for."""
    _address(epp)
    heard.destinations(await epp.ask())
