"""The least shell around a `Connection`: every message goes back as it came; the call ends when its client is done.

`/test.Echo/Never` answers nothing, `/test.Echo/Twice` each message twice, `/test.Echo/Early` ends after the first one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picker.wire.connection import Connection
from picker.wire.events import Event, HalfClosed, MessageReceived, StreamOpened
from picker.wire.limits import WireLimits

_PATIENCE_BYTES = 256 << 10
_DEFAULT = WireLimits()


class EchoServer(asyncio.Protocol):
    def __init__(self, limits: WireLimits, live: set["EchoServer"]) -> None:
        self._loop = asyncio.get_running_loop()
        self._live = live
        self._paused = False
        self._paths: dict[int, str] = {}
        self._held: set[int] = set()
        self._timer = self._loop.call_later(0, self._tick)
        self.connection = Connection(limits, self._loop.time())
        self.ended: list[Event] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._live.add(self)
        self._transport = transport
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._live.discard(self)
        self._timer.cancel()
        self._act(self.connection.disconnected())

    def data_received(self, data: bytes) -> None:
        self._act(self.connection.receive(data, self._loop.time()))
        self._pump()

    def pause_writing(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._transport.resume_reading()
        self._pump()

    def drain(self) -> None:
        self.connection.go_away()
        self._pump()

    def abort(self) -> None:
        self._transport.abort()

    def _tick(self) -> None:
        self._act(self.connection.tick(self._loop.time()))
        self._pump()

    def _act(self, events: list[Event]) -> None:
        connection = self.connection
        for event in events:
            match event:
                case StreamOpened(stream, path):
                    self._paths[stream] = path
                    if not path.startswith("/test.Echo/"):
                        connection.finish(stream, 12, "no such method")
                case MessageReceived(stream, data):
                    path = self._paths[stream]
                    for _ in range({"/test.Echo/Never": 0, "/test.Echo/Twice": 2}.get(path, 1)):
                        connection.send_message(stream, data)
                    if path == "/test.Echo/Early":
                        connection.finish(stream)
                    elif connection.queued_bytes(stream) > _PATIENCE_BYTES:
                        connection.hold(stream)
                        self._held.add(stream)
                case HalfClosed(stream):
                    if self._paths.pop(stream) != "/test.Echo/Never":
                        connection.finish(stream)
                case _:
                    self.ended.append(event)

    def _pump(self) -> None:
        connection = self.connection
        for stream in [each for each in self._held if connection.queued_bytes(each) <= _PATIENCE_BYTES]:
            self._held.discard(stream)
            connection.release(stream)
        if not self._paused and (data := connection.data_to_send()):
            self._transport.write(data)
        if connection.closing:
            self._transport.close()
        self._timer.cancel()
        self._timer = self._loop.call_later(min(1.0, max(0.0, connection.deadline - self._loop.time())), self._tick)


@asynccontextmanager
async def echo_server(limits: WireLimits = _DEFAULT, port: int = 0) -> AsyncIterator[tuple[int, set[EchoServer]]]:
    """Its port, and its live connections."""
    live: set[EchoServer] = set()
    server = await asyncio.get_running_loop().create_server(lambda: EchoServer(limits, live), "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1], live
    finally:
        server.close()
        for each in list(live):
            each.abort()
        while live:
            await asyncio.sleep(0)


async def _serve() -> None:
    async with echo_server() as (port, _):
        print(port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
