"""Mutual TLS, by real sockets and certificates: what is renewed on disk is what the next connection meets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from cryptography import x509
from pool_certificates import Authority
from small_service import ADDRESSES, Clock, make_service
from test_handoff_feed import asking, counted, until
from test_handoff_tls import ask, secured

from picker.handoff.feed import PLAN
from picker.server import handoff_follow
from picker.server.admin import metrics_app
from picker.server.handoff_calls import PEER
from picker.server.handoff_feed import Feed, feed_app
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import TOKEN_HEADER
from picker.server.tls import metrics_context

TOKEN = "a-secret-of-the-pool"


@asynccontextmanager
async def handoff_port(folder: Path) -> AsyncIterator[str]:
    """URL of a picker's plan, for proxies with certificates of `ca.crt` in `folder`."""
    (folder / "token").write_text(TOKEN)
    server = TestServer(feed_app({"chat": Feed(make_service(Clock()).router)}, folder / "token"), scheme="https")
    await server.start_server(ssl=metrics_context(folder, folder / "ca.crt"))
    try:
        yield f"https://127.0.0.1:{server.port}{PLAN}"
    finally:
        await server.close()


async def status(url: str, proxy: PoolTls) -> int:
    """Of a proxy that comes anew; 0 where it is not let in, or does not trust whom it meets."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={TOKEN_HEADER: TOKEN}, ssl=proxy.client) as response,
        ):
            return response.status
    except aiohttp.ClientError:
        return 0


async def shown(url: str, proxy: PoolTls) -> int:
    """Serial number of the certificate that a new connection meets."""
    _, _, host, *_ = url.split("/")
    _, writer = await asyncio.open_connection(*host.split(":"), ssl=proxy.client)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


def trusting(proxy: PoolTls) -> PoolTls:
    """It shows its certificate and asks for none: what becomes of it is the other's doing."""
    proxy.client.verify_mode = ssl.CERT_NONE
    return proxy


def kept(folder: Path) -> int:
    """Serial number of the certificate on disk."""
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes()).serial_number


async def test_a_picker_shows_proxies_its_renewed_certificate_from_the_next_connection_on(tmp_path: Path) -> None:
    authority = Authority()
    folder, proxy = authority.certify(tmp_path / "picker"), PoolTls(authority.certify(tmp_path / "proxy"))
    async with handoff_port(folder) as url:
        first = await shown(url, proxy)
        authority.certify(folder)
        assert first != await shown(url, proxy) == kept(folder)
        assert await status(url, proxy) == 200


async def test_while_what_is_there_does_not_fit_the_last_good_pair_is_shown(tmp_path: Path) -> None:
    authority = Authority()
    folder, proxy = authority.certify(tmp_path / "picker"), PoolTls(authority.certify(tmp_path / "proxy"))
    async with handoff_port(folder) as url:
        good = kept(folder)
        authority.certify(tmp_path / "other")
        (folder / "tls.key").write_bytes((tmp_path / "other" / "tls.key").read_bytes())
        assert await shown(url, proxy) == good
        (folder / "ca.crt").unlink()
        assert (await shown(url, proxy), await status(url, proxy)) == (good, 200)
        authority.certify(folder)
        assert good != await shown(url, proxy) == kept(folder)


async def test_whose_proxies_are_let_in_follows_a_change_of_the_ca_by_way_of_both(tmp_path: Path) -> None:
    before, after = Authority(), Authority()
    folder = before.certify(tmp_path / "picker")
    old, new = (PoolTls(each.certify(tmp_path / name)) for each, name in ((before, "old"), (after, "new")))
    async with handoff_port(folder) as url:
        assert [await status(url, proxy) for proxy in (old, trusting(new))] == [200, 0]
        with (folder / "ca.crt").open("ab") as both:
            both.write((tmp_path / "new" / "ca.crt").read_bytes())
        assert [await status(url, proxy) for proxy in (old, new)] == [200, 200]
        after.certify(folder)
        assert [await status(url, proxy) for proxy in (trusting(old), new)] == [0, 200]


@pytest.mark.parametrize("mutual", [True, False])
async def test_the_metrics_port_follows_its_files_in_the_same_way(tmp_path: Path, mutual: bool) -> None:
    authority = Authority()
    folder, reader = authority.certify(tmp_path / "picker"), PoolTls(authority.certify(tmp_path / "prometheus"))
    server = TestServer(metrics_app([]), scheme="https")
    await server.start_server(ssl=metrics_context(folder, folder / "ca.crt" if mutual else None))
    try:
        url = f"https://127.0.0.1:{server.port}/metrics"
        authority.certify(folder)
        assert await shown(url, reader) == kept(folder)
        assert await status(url, reader) == 200
    finally:
        await server.close()


async def test_a_proxy_lets_in_peers_of_its_new_ca_and_none_of_the_former(tmp_path: Path) -> None:
    before, after = Authority(), Authority()
    old, new = (PoolTls(each.certify(tmp_path / name)) for each, name in ((before, "old"), (after, "new")))
    async with secured({"a": before.certify(tmp_path / "a")}) as (_, proxies):
        url = f"https://{proxies['a'].peer_address}{PEER}/v1/models"
        assert [await status(url, peer) for peer in (old, new)] == [200, 0]
        after.certify(tmp_path / "a")
        assert [await status(url, peer) for peer in (trusting(old), new)] == [0, 200]


async def test_a_stream_goes_on_at_a_peer_after_their_pool_changed_its_ca(tmp_path: Path) -> None:
    before, after = Authority(), Authority()
    folders = {name: before.certify(tmp_path / name) for name in "ab"}
    async with secured(folders) as (engines, proxies):
        for folder in folders.values():
            after.certify(folder)
        engines["a"].dies_after = 3
        _, body = await ask(proxies["a"])
    assert (b"error" in body, len(engines["b"].heard)) == (False, 1)


async def test_a_proxy_that_its_picker_refused_is_told_the_plan_once_its_certificate_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff_follow, "LAST_RETRY_S", 0.01)
    before, after = Authority(), Authority()
    folder, proxy = after.certify(tmp_path / "picker"), before.certify(tmp_path / "proxy")
    async with handoff_port(folder) as url, asking(url.removesuffix(PLAN), tls=PoolTls(proxy)) as (feed, heard):
        await until(lambda: counted(feed, "away") > 0)
        after.certify(proxy)
        await until(lambda: bool(heard))
    assert heard[0].engines.keys() == set(ADDRESSES)
