"""One HTTP/2 connection of gRPC calls, the server's side.

    connection = Connection(WireLimits(), now)
    for event in connection.receive(data, now):     # bytes from the socket
        ...                                         # send_message, finish, reset, hold
    transport.write(connection.data_to_send())      # once per turn of the loop, only while the socket takes more
    for event in connection.tick(now): ...          # at `connection.deadline`, which moves: read it after every call
    if connection.closing: ...                      # write what is left, then close the socket
    connection.disconnected()                       # when the socket is gone

Sends to streams that have ended do nothing. An event may be about a stream that the owner finished while handling an
earlier event of the same list.
"""

import math

from picker.wire.events import Event
from picker.wire.limits import WireLimits


class Connection:
    """See the module. `now` is any clock in seconds that never runs backwards."""

    def __init__(self, limits: WireLimits, now: float) -> None:
        self.closing = False
        """No more is to be read; what `data_to_send` still holds is to be written, then the socket closed."""
        self.closed_because = ""
        """Why, in a few words for a log; empty after an orderly end."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What the peer's next bytes say. Never raises."""
        raise NotImplementedError

    def data_to_send(self) -> bytes:
        """All that may be written now, joined; empty when there is nothing."""
        raise NotImplementedError

    def tick(self, now: float) -> list[Event]:
        """What time alone has brought about."""
        raise NotImplementedError

    @property
    def deadline(self) -> float:
        """When `tick` is wanted next."""
        return math.inf

    @property
    def open_streams(self) -> int:
        """Streams that were opened and have not ended."""
        raise NotImplementedError

    def send_message(self, stream: int, data: bytes) -> None:
        """Queue one message; headers go before the first one."""
        raise NotImplementedError

    def finish(self, stream: int, status: int = 0, message: str = "") -> None:
        """End the call with a gRPC status once all its messages are out. `message` is for the peer's log."""
        raise NotImplementedError

    def reset(self, stream: int, code: int = 8) -> None:
        """Break the stream off at once with an HTTP/2 error code (8: CANCEL); what was queued is dropped."""
        raise NotImplementedError

    def queued_bytes(self, stream: int) -> int:
        """Of this stream's answer, bytes that wait for the peer's window."""
        raise NotImplementedError

    @property
    def queued_total(self) -> int:
        """Bytes that wait for windows or to be taken by `data_to_send`. Stop reading while this is high."""
        raise NotImplementedError

    def hold(self, stream: int) -> None:
        """Give the peer no more room on this stream: at most one window more will come."""
        raise NotImplementedError

    def release(self, stream: int) -> None:
        """Give room again."""
        raise NotImplementedError

    def go_away(self) -> None:
        """Drain: ask for no new streams; running ones go on; `closing` follows the last of them."""
        raise NotImplementedError

    def shut(self) -> list[Event]:
        """The final GOAWAY: every stream ends here, and `closing` holds."""
        raise NotImplementedError

    def disconnected(self) -> list[Event]:
        """The socket is gone: every open stream's end."""
        raise NotImplementedError
