"""HTTP towards engines: the one beside this proxy, and others through their proxies."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from picker.handoff.attempts import Break, FailoverSettings
from picker.handoff.members import Members
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import TOKEN_HEADER, WHY_HEADER

PEER = "/handoff/engine"
"""Paths of a peer's engine, at its proxy."""

_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding")
) | {"upgrade", "host", "content-length", "expect", TOKEN_HEADER.lower(), WHY_HEADER.lower()}


Answer = tuple[int, CIMultiDict[str], bytes]
"""Status, headers, body."""


class Broken(Exception):
    """An engine did not answer, or not to the end. `answer` is its own 5xx, if it gave one."""

    def __init__(self, how: Break, answer: Answer | None = None, message: str = "the engine failed") -> None:
        super().__init__(message)
        self.how, self.answer = how, answer

    @classmethod
    async def by(cls, response: aiohttp.ClientResponse) -> "Broken":
        """What an engine's 5xx means."""
        try:
            answer = response.status, response.headers.copy(), await response.read()
        except (aiohttp.ClientError, OSError):
            return cls("cut")
        return cls("overloaded" if response.status == 503 else "failed", answer)


def passed_on(headers: Mapping[str, str] | CIMultiDictProxy[str], *, but: Sequence[str] = ()) -> CIMultiDict[str]:
    """Headers without those of one hop, and without some."""
    listed = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    left = _HOP | listed | {name.lower() for name in but}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in left)


class Calls:
    """`own` is the name of the engine at `engine`; all other names are found in the membership of the moment."""

    def __init__(
        self,
        own: str,
        engine: str,
        token: str | None,
        settings: FailoverSettings,
        members: Callable[[], Members],
        tls: PoolTls | None = None,
    ) -> None:
        """`tls` is for peers."""
        self.own, self._engine, self._token = own, engine, token
        self._settings, self._members, self._tls = settings, members, tls
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    def hosts(self) -> set[str]:
        """Of all engines' proxies."""
        return self._members().hosts()

    def peers(self) -> list[str]:
        """Engines that can be asked besides the own one; none without the pool's token."""
        return self._members().peers(self.own) if self._token is not None else []

    @contextlib.asynccontextmanager
    async def asking(
        self, engine: str, method: str, path: str, body: Any, headers: CIMultiDict[str], first_s: float | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head; its body is the caller's to read. Raises Broken where there is no head in time."""
        base, more = self._place(engine)
        url = URL(base + path, encoded=True)
        try:
            async with asyncio.timeout(first_s):
                response = await self._session.request(
                    method,
                    url,
                    data=body,
                    headers=CIMultiDict([*headers.items(), *more]),
                    allow_redirects=False,
                    ssl=True if engine == self.own else self._for_peers(),
                )
        except TimeoutError as error:
            refused = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise Broken("refused" if refused else "silent") from None
        except aiohttp.ClientConnectorError:
            raise Broken("refused") from None
        except (aiohttp.ClientError, OSError):
            raise Broken("cut") from None
        try:
            yield response
        finally:
            response.close()

    async def json(self, engine: str, path: str, body: Any, within_s: float, authorization: str) -> Any:
        """The JSON of a 200, of the client's `authorization`. Raises Broken for all else."""
        headers = CIMultiDict({"Content-Type": "application/json"})
        if authorization:
            headers["Authorization"] = authorization
        method, data = ("GET", None) if body is None else ("POST", msgspec.json.encode(body))
        try:
            async with asyncio.timeout(within_s), self.asking(engine, method, path, data, headers) as response:
                if response.status != 200:
                    raise Broken("failed")
                return msgspec.json.decode(await response.read())
        except TimeoutError:
            raise Broken("silent") from None
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError):
            raise Broken("cut") from None

    async def tell(self, peer: str, path: str, data: bytes) -> None:
        """Post to a peer's proxy itself. What is lost is lost."""
        url = self._members().engines.get(peer)
        if url is None or self._token is None:
            return
        headers = {TOKEN_HEADER: self._token, "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=self._settings.connect_s)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._session.post(
                url + path, data=data, headers=headers, timeout=timeout, ssl=self._for_peers()
            ):
                pass

    def _for_peers(self) -> ssl.SSLContext | bool:
        return True if self._tls is None else self._tls.client

    def _place(self, engine: str) -> tuple[str, list[tuple[str, str]]]:
        if engine == self.own:
            return self._engine, []
        url = self._members().engines.get(engine)
        if url is None or self._token is None:
            raise Broken("refused")
        return url + PEER, [(TOKEN_HEADER, self._token)]
