"""The least that a picker on our transport can be: `python -m bench.in_turn PORT IP:PORT...`.

It keeps the protocol towards Envoy, by the wire core and the event loop that picker has, and names the endpoints in
turn. It reads nothing of a request but where its body ends, reserves nothing, remembers nothing and scrapes nobody;
what the access log tells it is thrown away. What it costs is there before the first thought is given to a pick.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from itertools import cycle

import uvloop

from bench.backends import HOST
from picker.exchange import decode, encode
from picker.server.lean import Call, Line
from picker.server.lean_calls import LOGS, PROCESS
from picker.server.lean_server import LeanServer
from picker.server.transport import Door, Limits

_REQUEST_BODY = 4 << 3 | 2
"""First byte of a ProcessingRequest with a piece of a request's body: field 4."""


class Process:
    """One request, its body in full duplex and nothing of its answer."""

    __slots__ = ("_endpoints", "_line", "_pieces")

    def __init__(self, line: Line, endpoints: Iterator[str]) -> None:
        self._line, self._endpoints = line, endpoints
        self._pieces: list[bytes] = []

    def message(self, data: bytes) -> None:
        heard = decode.message(data) if data[0] == _REQUEST_BODY else None
        if heard is None:
            return
        self._pieces.append(heard.body)
        if heard.end:
            mutation, metadata = encode.pick((next(self._endpoints),), "1", {})
            self._line.say(encode.go_on(encode.REQUEST_HEADERS, mutation=mutation, more=metadata))
            self._line.send(encode.streamed(encode.REQUEST_BODY, b"".join(self._pieces), end=True))

    def half_closed(self) -> None:
        self._line.finish()

    def close(self, code: str) -> None:
        pass


class Log:
    """The access log, unread."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def message(self, data: bytes) -> None:
        pass

    def half_closed(self) -> None:
        self._line.finish()

    def close(self, code: str) -> None:
        pass


async def serve(port: int, addresses: Sequence[str]) -> None:
    """For ever. Raises OSError."""
    endpoints = cycle(addresses)

    def answer(line: Line, path: str, metadata: Sequence[tuple[str, str]]) -> Call | None:
        if path == PROCESS:
            return Process(line, endpoints)
        return Log(line) if path == LOGS else None

    server = LeanServer(answer, Limits())
    await server.open(Door(HOST, port))
    await server.start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("addresses", nargs="+")
    given = parser.parse_args()
    uvloop.run(serve(given.port, given.addresses))


if __name__ == "__main__":
    main()
