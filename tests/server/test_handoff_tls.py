"""Proxies that meet by mutual TLS: members of the pool's CA do, others do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from handoff_pool import ASKED, CHAT, TOKEN, Engine
from pool_certificates import Authority

from picker.handoff.members import Members
from picker.server.handoff import HandoffOptions, HandoffServer, running
from picker.server.handoff_calls import PEER
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import TOKEN_HEADER


@contextlib.asynccontextmanager
async def secured(folders: dict[str, Path]) -> AsyncIterator[tuple[dict[str, Engine], dict[str, HandoffServer]]]:
    """Engines, and proxies with these certificates that know each other by their TLS ports."""
    engines = {name: Engine(name) for name in folders}
    async with contextlib.AsyncExitStack() as stack:
        proxies = {}
        for name, engine in engines.items():
            runner = web.AppRunner(engine.app(), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            options = HandoffOptions(name, engine.url, "127.0.0.1", 0, token=TOKEN, cert_dir=folders[name])
            proxies[name] = await stack.enter_async_context(running(options))
        members = Members(engines={name: f"https://{proxy.peer_address}" for name, proxy in proxies.items()})
        for proxy in proxies.values():
            proxy.follow(members)
        yield engines, proxies


async def ask(proxy: HandoffServer) -> tuple[int, bytes]:
    url = f"http://{proxy.address}{CHAT}"
    async with aiohttp.ClientSession() as session, session.post(url, json=ASKED | {"stream": True}) as response:
        return response.status, await response.read()


async def test_a_stream_goes_on_at_a_peer_with_a_certificate_of_the_pools_ca(tmp_path: Path) -> None:
    authority = Authority()
    folders = {name: authority.certify(tmp_path / name) for name in "ab"}
    async with secured(folders) as (engines, proxies):
        engines["a"].dies_after = 3
        status, body = await ask(proxies["a"])
    assert (status, body.endswith(b"data: [DONE]\n\n"), b"error" in body) == (200, True, False)
    assert engines["b"].heard


async def test_a_certificate_of_another_ca_brings_nobody_in(tmp_path: Path) -> None:
    folders = {name: Authority().certify(tmp_path / name) for name in "ab"}
    async with secured(folders) as (engines, proxies):
        engines["a"].dies_after = 3
        status, body = await ask(proxies["a"])
    assert (status, b"error" in body) == (200, True)
    assert not engines["b"].heard


@pytest.mark.parametrize("certified", [True, False])
async def test_peers_come_by_their_port_with_certificate_and_token_alone(tmp_path: Path, certified: bool) -> None:
    authority = Authority()
    async with secured({"a": authority.certify(tmp_path / "a")}) as (_, proxies), aiohttp.ClientSession() as session:
        tls = PoolTls((authority if certified else Authority()).certify(tmp_path / "other")).client
        url = f"https://{proxies['a'].peer_address}{PEER}/v1/models"
        if not certified:
            with pytest.raises(aiohttp.ClientError):
                await session.get(url, ssl=tls, headers={TOKEN_HEADER: TOKEN})
            return
        statuses = []
        for headers in ({TOKEN_HEADER: TOKEN}, {TOKEN_HEADER: "a-secret-of-others"}):
            async with session.get(url, ssl=tls, headers=headers) as response:
                statuses.append(response.status)
        assert statuses == [200, 404]
        plain = f"http://{proxies['a'].address}/handoff/members"
        async with session.put(plain, data=b"{}", headers={TOKEN_HEADER: TOKEN}) as response:
            # The engine's answer: the plain port has no such path.
            assert (await response.json())["path"] == "/handoff/members"


async def test_a_renewed_pair_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    authority, other = Authority(), Authority()
    tls = PoolTls(authority.certify(tmp_path / "a"))
    other.certify(tmp_path / "other")
    (tmp_path / "a" / "tls.key").write_bytes((tmp_path / "other" / "tls.key").read_bytes())
    assert await meets(tls, PoolTls(authority.certify(tmp_path / "b")))
    authority.certify(tmp_path / "a")
    assert await meets(tls, PoolTls(authority.certify(tmp_path / "b")))


async def meets(listening: PoolTls, asking: PoolTls) -> bool:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=listening.server)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=asking.client)
        writer.close()
    return True


def test_what_does_not_belong_together_is_told_at_start(tmp_path: Path) -> None:
    Authority().certify(tmp_path)
    (tmp_path / "tls.key").write_text("no key")
    with pytest.raises(OSError, match=r"PEM|key|SSL"):
        PoolTls(tmp_path)
