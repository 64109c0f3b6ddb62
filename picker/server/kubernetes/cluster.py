"""An API server and the credentials for it: from KUBECONFIG, from the pod's service account, or from ~/.kube/config.

`kubernetes` finds and refreshes credentials. Requests are plain ones of aiohttp: its models would cost ten times the
CPU of what is read here.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from picker.server.renewed import Newest

CONNECT_S = 10.0
_KEEP_ALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A connection whose other end vanished is given up after 50 s, where the platform lets us."""


class NoCluster(Exception):
    """There is no API server to speak to; the message says what was looked for."""


class Cluster:
    """One API server. `connect` makes it; `close` ends its connections."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        self._tls = Newest([Path(file) for file in files if file], lambda: _context(configuration))
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    async def connect(cls) -> "Cluster":
        """Read the configuration; nothing is sent yet. Raises NoCluster."""
        configuration, files = Configuration(), os.environ.get("KUBECONFIG")
        in_cluster = not files and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        try:
            if in_cluster:
                load_incluster_config(configuration)
            else:
                await load_kube_config(files or None, client_configuration=configuration)
            return await asyncio.to_thread(cls, configuration)
        except (ConfigException, OSError, ValueError) as error:
            where = "the pod's service account" if in_cluster else files or "~/.kube/config"
            raise NoCluster(f"no way to a Kubernetes API server: {where}: {error}") from error

    @property
    def configuration(self) -> Configuration:
        """With it a client of `kubernetes` speaks to the same server."""
        return self._configuration

    def tls(self) -> ssl.SSLContext:
        """For the next connection: of the files as they are now, another one where they changed."""
        return self._tls()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        timeout_s: float = 60.0,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, `body` sent as JSON; the answer is read inside the context, within `timeout_s` altogether.

        Raises aiohttp.ClientError, OSError or TimeoutError; a status is never raised.
        """
        settings = self._configuration
        token = await settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "picker"}
        async with self._open().request(
            method,
            settings.host + path,
            params=params,
            json=body,
            headers=headers | ({"Authorization": token} if token else {}),
            proxy=settings.proxy,
            ssl=self.tls(),
            server_hostname=settings.tls_server_name,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S),
        ) as answer:
            _keep_alive(answer)
            yield answer

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:  # a session is made inside the loop that uses it
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=True,
            )
        return self._session


def _context(configuration: Configuration) -> ssl.SSLContext:
    context: ssl.SSLContext = RESTClientObject(configuration).ssl_context
    return context


def _keep_alive(answer: aiohttp.ClientResponse) -> None:
    transport = answer.connection.transport if answer.connection is not None else None
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is None:
        return
    with contextlib.suppress(OSError):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
