"""A headless Chromium, driven through its DevTools protocol: what it fetched, what it complained of, what it shows."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,900 --remote-debugging-port=0 about:blank"
)
START_S = 60.0


def find() -> str:
    """Raises LookupError with what to do: a browser test without a browser has not passed."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    raise LookupError(f"no browser here (tried {', '.join(NAMES)}): install one, on Debian apt-get install chromium")


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **params: object) -> Any:
        """The answer of one command; events on the way to it are kept."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": params})
        while True:
            message = await self._next()
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return message["result"]

    async def open(self, url: str) -> None:
        """Until it has loaded."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        while not self.said("Page.loadEventFired"):
            await self._next()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, by JSON."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def said(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] == method]

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json(timeout=START_S)
        if "method" in message:
            self.events.append(message)
        return message


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """A fresh profile each time, gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        silent = asyncio.subprocess.DEVNULL
        browser = await asyncio.create_subprocess_exec(
            find(), f"--user-data-dir={profile}", *FLAGS.split(), stdout=silent, stderr=silent
        )
        try:
            port = await asyncio.wait_for(_port(Path(profile) / "DevToolsActivePort", browser), START_S)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tab = next(tab for tab in await answer.json() if tab["type"] == "page")
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            if browser.returncode is None:
                browser.kill()
            await browser.wait()


async def _port(file: Path, browser: asyncio.subprocess.Process) -> int:
    """Chromium tells nobody that it listens but by this file."""
    while True:
        assert browser.returncode is None, "the browser has ended"
        if file.exists() and (lines := file.read_text().split()):
            return int(lines[0])
        await asyncio.sleep(0.05)
