"""Whom picker trusts as an API server, and what it shows there, follow the files that a kubeconfig names."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from pool_certificates import Authority

from picker.server.kubernetes.cluster import Cluster
from picker.server.leader import api_client
from picker.server.tls import self_signed

CLIENTS = Authority()
"""Whose certificates the API server lets in."""


def write(folder: Path, pair: tuple[bytes, bytes]) -> Path:
    folder.mkdir()
    (folder / "key").write_bytes(pair[0])
    (folder / "crt").write_bytes(pair[1])
    return folder


@dataclass
class Ours:
    """Our side: the files are `ca.crt`, `tls.crt` and `tls.key`."""

    cluster: Cluster
    folder: Path

    async def asks(self) -> bool:
        """Whether the API server answers a new connection."""
        try:
            async with self.cluster.request("GET", "/version") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@contextlib.asynccontextmanager
async def api_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ours]:
    """One that we trust and that lets us in, by a kubeconfig that names files."""
    theirs, ours = write(folder / "theirs", self_signed()), CLIENTS.certify(folder / "ours")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ours / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(theirs / "crt", theirs / "key")
    (ours / "ca.crt").write_bytes((theirs / "crt").read_bytes())

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"major": "1"}, headers={"Connection": "close"})

    app = web.Application()
    app.router.add_get("/version", version)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(folder, f"https://127.0.0.1:{server.port}")))
    cluster = await Cluster.connect()
    try:
        yield Ours(cluster, ours)
    finally:
        await cluster.close()
        await server.close()


def kubeconfig(folder: Path, url: str) -> Path:
    named = {"client-certificate": "ours/tls.crt", "client-key": "ours/tls.key"}
    config = {
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": url, "certificate-authority": "ours/ca.crt"}}],
        "users": [{"name": "it", "user": named}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return folder / "kubeconfig"


def renew(folder: Path, authority: Authority) -> None:
    """Our own pair; whom we trust stays."""
    trusted = (folder / "ca.crt").read_bytes()
    authority.certify(folder)
    (folder / "ca.crt").write_bytes(trusted)


async def test_a_certificate_that_was_refused_is_let_in_once_it_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server(tmp_path, monkeypatch) as ours:
        renew(ours.folder, Authority())
        assert not await ours.asks()
        renew(ours.folder, CLIENTS)
        assert await ours.asks()


async def test_a_server_of_a_new_ca_is_trusted_once_its_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server(tmp_path, monkeypatch) as ours:
        theirs = (ours.folder / "ca.crt").read_bytes()
        (ours.folder / "ca.crt").write_bytes(self_signed()[1])
        late = await Cluster.connect()
        assert not await Ours(late, ours.folder).asks()
        (ours.folder / "ca.crt").write_bytes(theirs)
        assert await Ours(late, ours.folder).asks()
        await late.close()


@pytest.mark.parametrize("broken", ["ca.crt", "tls.crt", "tls.key"])
async def test_files_that_do_not_fit_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    async with api_server(tmp_path, monkeypatch) as ours:
        (ours.folder / broken).write_text("half a fi")
        assert await ours.asks()
        (ours.folder / broken).unlink()
        assert await ours.asks()


async def test_an_elections_certificate_follows_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with api_server(tmp_path, monkeypatch) as ours, api_client(ours.cluster) as api:
        url = f"{ours.cluster.configuration.host}/version"
        renew(ours.folder, Authority())
        with pytest.raises(aiohttp.ClientError):
            await api.rest_client.request("GET", url)
        renew(ours.folder, CLIENTS)
        assert (await api.rest_client.request("GET", url)).status == 200
