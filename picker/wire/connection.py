"""One HTTP/2 connection of gRPC calls, the server's side.

    connection = Connection(WireLimits(), now)
    for event in connection.receive(data, now):     # bytes from the socket
        ...                                         # send_message, finish, reset, hold
    transport.write(connection.data_to_send())      # once per turn of the loop, only while the socket takes more
    for event in connection.tick(now): ...          # at `connection.deadline`, which moves: read it after every call
    if connection.closing: ...                      # write what is left, then close the socket
    connection.disconnected()                       # when the socket is gone

Messages that the owner would answer in one known way need not become events: `echo`.

Sends to streams that have ended do nothing. An event may be about a stream that the owner finished while handling an
earlier event of the same list.

Back-pressure has two sides. Stop reading the socket only while it takes no bytes: window updates come by the same way.
`hold` a stream while its `queued_bytes` are many.
"""

import math
from typing import Final

from picker.wire.echo import Echo
from picker.wire.events import Event, MessageReceived
from picker.wire.frames import (
    END_STREAM,
    FRAME_BYTES,
    HEAD,
    LARGEST,
    PREFACE,
    PREFIX,
    WHOLE,
    Broken,
    Code,
    Kind,
    frame,
    go_away,
)
from picker.wire.incoming import DRAIN, connection_room, incoming
from picker.wire.limits import WireLimits
from picker.wire.session import Session

_KEEPALIVE: Final = b"are you?"
_NO_LENGTH: Final = -6
"""Of a message whose prefix is not there: no frame is so much shorter than its prefix."""


class Connection:
    """See the module. `now` is any clock in seconds that never runs backwards."""

    def __init__(self, limits: WireLimits, now: float, echo: Echo | None = None) -> None:
        self._session = Session(limits, now, echo)
        self._outbox = self._session.outbox
        self._rest = b""
        self._begun = False
        self._whole_at = 0.0
        self._takes = 0
        self._half_stream = limits.stream_window // 2
        self._half_connection = limits.connection_window // 2
        self._short = min(FRAME_BYTES, limits.message_bytes + PREFIX.size)

    @property
    def closing(self) -> bool:
        """No more is to be read; what `data_to_send` still holds is to be written, then the socket closed."""
        return self._session.closing

    @property
    def closed_because(self) -> str:
        """Why, in a few words for a log; empty after an orderly end."""
        return self._session.closed_because

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return len(self._session.streams)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """What the peer's next bytes say. Never raises."""
        session = self._session
        if not session.closing:
            session.now = session.watch.heard = now
            try:
                self._read(self._rest + data if self._rest else data)
            except Broken as broken:
                session.break_off(broken)
            if self._outbox.ready_bytes > session.limits.queued_bytes:
                session.bounded()
        return self._heard()

    def data_to_send(self) -> bytes:
        """All that may be written now, joined; empty when there is nothing."""
        outbox = self._outbox
        if not outbox.ready:
            return b""
        self._takes += 1
        self._session.chatter.earn(outbox.ready_bytes / self._session.limits.bytes_per_idle_frame)
        return outbox.take()

    def tick(self, now: float) -> list[Event]:
        """What time alone has brought about."""
        session = self._session
        if not session.closing:
            session.now = now
            for stream in session.watch.overdue(session.streams, now):
                session.overdue(stream)
            if session.watch.sweeps(now):
                self._sweep()
        return self._heard()

    @property
    def deadline(self) -> float:
        """When `tick` is wanted next; long past where there are events to fetch at once."""
        if self._session.events:
            return -math.inf
        return math.inf if self._session.closing else self._session.watch.deadline

    def send_message(self, stream: int, data: bytes) -> None:
        """Queue one message; headers go before the first one."""
        session = self._session
        call = session.streams.get(stream)
        if call is not None and call.trailers is None:
            if stream in session.lanes.streams:
                session.lanes.close(stream)
            outbox = self._outbox
            outbox.message(call, data)
            if outbox.ready_bytes + outbox.waiting > session.limits.queued_bytes:
                session.bounded()

    def echo(self, stream: int) -> None:
        """Answer messages of the shape without a word to the owner, until another one comes or anything else is said of
        the stream. Without effect where there is no shape, or where the stream has something to wait for."""
        call = self._session.streams.get(stream)
        if call is not None and call.plain and call.headed and not call.queue:
            self._session.lanes.open(call)

    def finish(self, stream: int, status: int = 0, message: str = "") -> None:
        """End the call with a gRPC status once all its messages are out. `message` is for the peer's log."""
        call = self._session.streams.get(stream)
        if call is not None and call.trailers is None:
            self._session.finish(call, status, message)

    def reset(self, stream: int, code: int = Code.CANCEL) -> None:
        """Break the stream off at once with an HTTP/2 error code; what was queued is dropped."""
        call = self._session.streams.get(stream)
        if call is not None:
            self._session.reset(call, code)

    def queued_bytes(self, stream: int) -> int:
        """Of this stream's answer, bytes that wait for the peer's windows."""
        call = self._session.streams.get(stream)
        return 0 if call is None else len(call.queue)

    @property
    def waiting(self) -> int:
        """The same of all streams."""
        return self._outbox.waiting

    @property
    def queued_total(self) -> int:
        """Bytes that wait for windows or to be taken by `data_to_send`."""
        return self._outbox.waiting + self._outbox.ready_bytes

    def hold(self, stream: int) -> None:
        """Give the peer no more room on this stream: at most one window more will come."""
        call = self._session.streams.get(stream)
        if call is not None:
            self._session.lanes.close(stream)
            call.held = True
            call.weigh()

    def release(self, stream: int) -> None:
        """Give room again."""
        call = self._session.streams.get(stream)
        if call is not None and call.held:
            call.held = False
            call.weigh()
            self._session.room(call)

    def go_away(self) -> None:
        """Drain: ask for no new streams; running ones go on; `closing` follows the last of them.

        Two GOAWAYs with a PING between them (RFC 9113 section 6.8), so that no request that was already on its way
        is lost.
        """
        session = self._session
        if session.draining or session.closing:
            return
        session.draining = True
        self._outbox.put(go_away(LARGEST, Code.NO_ERROR) + frame(Kind.PING, 0, 0, DRAIN))

    def shut(self) -> list[Event]:
        """The final GOAWAY: every stream ends here, and `closing` holds."""
        self._session.break_off(Broken(Code.NO_ERROR, ""))
        return self._heard()

    def disconnected(self) -> list[Event]:
        """The socket is gone: every open stream's end."""
        self._session.lose()
        return self._heard()

    def _heard(self) -> list[Event]:
        events = self._session.events
        if events:
            self._session.events = []
        return events

    def _read(self, buffer: bytes) -> None:
        """Whole frames; the rest is kept for the next bytes.

        DATA with one whole message or the end alone, on a stream without any complication, is dealt with here, since
        nearly all is such.
        """
        session = self._session
        end = len(buffer)
        at = 0
        if not self._begun:
            if not self._preface(buffer):
                self._rest = buffer
                return
            at = len(PREFACE)
        streams = session.quick
        echoed = session.lanes.streams
        events = session.events
        short, half_stream, half_connection = self._short, self._half_stream, self._half_connection
        while end - at >= HEAD.size:
            if end - at >= WHOLE.size:
                word, flags, number, packed, length = WHOLE.unpack_from(buffer, at)
            else:
                word, flags, number = HEAD.unpack_from(buffer, at)
                packed, length = 0, _NO_LENGTH
            start = at + 9
            size = word >> 8
            at = start + size
            if at > end:
                if size > FRAME_BYTES:
                    raise Broken(Code.FRAME_SIZE_ERROR, "a frame is too long")
                at = start - 9
                break
            if number in echoed and number in streams:
                if (past := self._echo(buffer, start - 9)) >= at:
                    at = past
                    continue
                session.lanes.close(number)
            if length == size - 5 and not (packed or word & 0xFF) and flags < 2 and size <= short:
                stream = streams.get(number)
                if stream is not None and stream.plain:
                    events.append(MessageReceived(number, buffer[start + 5 : at]))
                    session.taken += size
                    stream.taken += size
                    if session.taken > half_connection:
                        connection_room(session)
                    if flags:
                        session.half_close(stream)
                    elif stream.taken > half_stream:
                        session.room(stream)
                    continue
            elif flags == END_STREAM and not word:
                stream = streams.get(number)
                if stream is not None and stream.plain:
                    session.half_close(stream)
                    continue
            incoming(session, word & 0xFF, flags, number, buffer[start:at])
            streams = session.quick
        if at:
            self._whole_at = session.watch.clock
        self._rest = buffer[at:]

    def _echo(self, buffer: bytes, at: int) -> int:
        """Answer messages from `at` on; where the first frame begins that is not one to answer here."""
        session, outbox = self._session, self._outbox
        past, came, room, frames = session.lanes.answers(buffer, at, self._half_stream, self._short, *outbox.room)
        if frames:
            outbox.echo(frames, room)
            session.taken += came
            if session.taken > self._half_connection:
                connection_room(session)
        return past

    def _preface(self, buffer: bytes) -> bool:
        """Whether the preface is whole by now."""
        if not PREFACE.startswith(buffer[: len(PREFACE)]):
            raise Broken(Code.PROTOCOL_ERROR, "the peer does not speak HTTP/2")
        self._begun = len(buffer) >= len(PREFACE)
        return self._begun

    def _sweep(self) -> None:
        session = self._session
        watch = session.watch
        for stream in watch.stalled(list(session.streams.values())):
            session.stalled(stream)
        try:
            begun = self._rest or session.block is not None
            if begun and watch.clock - self._whole_at >= session.limits.stall_s:
                raise Broken(Code.ENHANCE_YOUR_CALM, "a frame or a header block is not completed")
            if watch.wants_ping(self._takes, bool(self._outbox.ready)):
                self._outbox.put(frame(Kind.PING, 0, 0, _KEEPALIVE))
        except Broken as broken:
            session.break_off(broken)
