"""Both sides of a connection, played step by step: a peer that says anything, an owner that does anything.

The judge reads everything that is said by either and objects to what cannot be: bytes that are no frames, more DATA
than there is room for, a stream's frames out of order, messages that nobody sent, an end told twice or never. What goes
back unheard has to be the answer to a message that came and was not told.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from hpack import Decoder
from wire_peer import ECHO, SHAPE, grpc, nested, request, settings, shaped, window_update

from picker.wire.connection import Connection
from picker.wire.events import Event, HalfClosed, MessageReceived, StreamEnded, StreamOpened
from picker.wire.frames import ACK, END_STREAM, HEAD, LARGEST, PADDED, PREFACE, Kind, Setting, frame
from picker.wire.limits import WireLimits


@dataclass
class Side:
    """What is known of one stream. `room`: for DATA; `less` of it once the peer's bytes are heard.
    `echoes`: payloads that came in the shape of an echo and were neither told nor answered so far."""

    opened: bool = False
    half_closed: bool = False
    ended: bool = False
    finished: bool = False
    headed: bool = False
    closed: bool = False
    sent: int = 0
    room: int = 0
    less: int = 0
    answer: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    echoes: list[bytes] = field(default_factory=list)


class Judge:
    """`now` is everybody's clock."""

    def __init__(self, limits: WireLimits) -> None:
        self.connection = Connection(limits, 0.0, ECHO)
        self.now = 0.0
        self.sides: dict[int, Side] = {}
        self.room = self.initial = 65_535
        self.frame_bytes = 16_384
        self.told: list[Event] = []
        self.acknowledged = 0
        self.given: Counter[int] = Counter()
        self._decoder = Decoder()
        self._said = b""
        self._written = b""
        self._greeted = False

    def say(self, data: bytes) -> None:
        """The peer's bytes."""
        self.take()
        self._listen(data)
        self._hear(self.connection.receive(data, self.now))
        self.take()
        for side in self.sides.values():
            side.room -= side.less
            side.less = 0

    def wait(self, seconds: float) -> None:
        """Time passes, looked at every five seconds."""
        end = self.now + seconds
        while True:
            self.now = min(end, self.now + 5)
            self._hear(self.connection.tick(self.now))
            self.take()
            if self.now == end:
                break

    def send(self, stream: int, data: bytes) -> None:
        side = self._side(stream)
        if side.opened and not side.ended and not side.finished and not self.connection.closing:
            side.answer += b"\0" + len(data).to_bytes(4, "big") + data
        self.connection.send_message(stream, data)
        self.wait(0)

    def finish(self, stream: int, status: int = 0) -> None:
        self.connection.finish(stream, status, "so be it")
        self._side(stream).finished |= self._side(stream).opened
        self.wait(0)

    def reset(self, stream: int) -> None:
        self.connection.reset(stream)
        self._side(stream).finished |= self._side(stream).opened
        self.wait(0)

    def end(self) -> None:
        """The socket is gone: by now every stream has ended one way or the other."""
        self._hear(self.connection.disconnected())
        assert self.connection.closing
        assert self.connection.open_streams == 0
        for stream, side in self.sides.items():
            assert not side.opened or side.ended or side.finished, f"stream {stream} was left open"
        self.take()
        assert self.connection.queued_total == 0

    def take(self) -> None:
        """What the connection writes."""
        self._written += self.connection.data_to_send()
        while len(self._written) >= HEAD.size:
            word, flags, stream = HEAD.unpack_from(self._written)
            end = HEAD.size + (word >> 8)
            assert end <= len(self._written), "half a frame was written"
            self._wrote(word & 0xFF, flags, stream, self._written[HEAD.size : end])
            self._written = self._written[end:]
        assert not self._written
        self._balance()

    def _balance(self) -> None:
        """What the connection has counted is what its streams hold."""
        session = self.connection._session
        streams = session.streams.values()
        assert session.assembly.total == sum(len(stream.partial) for stream in streams)
        assert session.assembly._begun.keys() == {stream.id for stream in streams if stream.partial}
        assert session.assembly._parked.keys() == {stream.id for stream in streams if stream.parked}
        assert session.outbox._turns.keys() <= {stream.id for stream in streams if stream.queue}
        assert session.outbox.waiting == sum(len(stream.queue) for stream in streams)

    def _side(self, stream: int) -> Side:
        return self.sides.setdefault(stream, Side(room=self.initial))

    def _hear(self, events: list[Event]) -> None:
        self.told += events
        for event in events:
            side = self._side(event.stream)
            assert not side.ended, f"{event} after the end"
            match event:
                case StreamOpened():
                    assert not side.opened
                    side.opened = True
                case MessageReceived(_, data):
                    assert side.opened
                    assert not side.half_closed
                    assert type(data) is bytes
                    side.messages.append(data)
                    self._told(side, data)
                case HalfClosed():
                    assert side.opened
                    assert not side.half_closed
                    side.half_closed = True
                case StreamEnded():
                    assert side.opened
                    side.ended = True

    def _wrote(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert len(payload) <= self.frame_bytes
        side = self._side(stream)
        match kind:
            case Kind.HEADERS:
                assert not side.closed
                fields = dict(cast(Iterable[tuple[str, str]], self._decoder.decode(payload)))
                assert (":status" in fields) is not side.headed
                side.headed = True
                side.closed = bool(flags & END_STREAM)
                assert side.closed or fields["content-type"] == "application/grpc"
                assert fields.get("grpc-message") != "so be it" or side.sent == len(side.answer), "messages were lost"
            case Kind.DATA:
                assert side.headed
                assert not side.closed
                side.room -= len(payload)
                self.room -= len(payload)
                assert side.room >= 0 or not payload, "DATA without room on its stream"
                assert self.room >= 0, "DATA without room on the connection"
                if side.sent == len(side.answer):
                    side.answer += self._echo(side, payload)
                assert side.answer[side.sent : side.sent + len(payload)] == payload
                side.sent += len(payload)
            case Kind.RST_STREAM:
                side.closed = True
            case Kind.SETTINGS if flags & ACK:
                self.acknowledged -= 1
                assert self.acknowledged >= 0
            case Kind.WINDOW_UPDATE:
                assert 0 < int.from_bytes(payload, "big") <= LARGEST
                self.given[stream] += int.from_bytes(payload, "big")
            case _:
                assert kind in (Kind.SETTINGS, Kind.PING, Kind.GOAWAY)

    def _listen(self, data: bytes) -> None:
        """What the peer's bytes mean for the room it gives."""
        self._said += data
        if not self._greeted:
            if len(self._said) < len(PREFACE):
                return
            self._greeted = True
            self._said = self._said[len(PREFACE) :]
        while len(self._said) >= HEAD.size:
            word, flags, stream = HEAD.unpack_from(self._said)
            end = HEAD.size + (word >> 8)
            if end > len(self._said):
                return
            self._side(stream & LARGEST)
            payload, self._said = self._said[HEAD.size : end], self._said[end:]
            if word & 0xFF == Kind.DATA and (chunk := echoed(payload)):
                self._side(stream).echoes.append(chunk)
            elif word & 0xFF == Kind.WINDOW_UPDATE:
                self._opens(stream & LARGEST, int.from_bytes(payload, "big") & LARGEST)
            elif word & 0xFF == Kind.SETTINGS and not flags & ACK:
                self.acknowledged += 1
                for at in range(0, len(payload) - 5, 6):
                    self._sets(
                        int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")
                    )

    def _told(self, side: Side, message: bytes) -> None:
        """Chunks are told or answered in their order."""
        if (chunk := echoed(grpc(message))) in side.echoes:
            del side.echoes[: side.echoes.index(chunk) + 1]

    def _echo(self, side: Side, payload: bytes) -> bytes:
        """What was to be sent next, if it is an answer that nobody gave."""
        answers = [grpc(nested(SHAPE.out, chunk)) for chunk in side.echoes]
        if payload not in answers:
            return b""
        del side.echoes[: answers.index(payload) + 1]
        return payload

    def _opens(self, stream: int, more: int) -> None:
        if stream:
            self._side(stream).room += more
        else:
            self.room += more

    def _sets(self, name: int, value: int) -> None:
        if name == Setting.INITIAL_WINDOW_SIZE:
            for side in self.sides.values():
                side.room += max(0, value - self.initial)
                side.less += max(0, self.initial - value)
            self.initial = value
        elif name == Setting.MAX_FRAME_SIZE:
            self.frame_bytes = value


def echoed(payload: bytes) -> bytes:
    """The chunk in a frame that has the shape of an echo; nothing for any other."""
    chunk = payload[len(grpc(shaped(b"."))) - 1 :]
    for skipped in range(3):
        if payload == grpc(shaped(chunk[skipped:])):
            return chunk[skipped:]
    return b""


class Client:
    """A peer that keeps the rules: it sends its messages as room is given, cut and padded as it likes, and gives room
    for what comes back, which is the same. The owner answers each message with itself."""

    def __init__(self, limits: WireLimits, bodies: list[list[int]], window: int) -> None:
        self.judge = Judge(limits)
        self.messages = {2 * i + 1: [bytes([i]) * size for size in sizes] for i, sizes in enumerate(bodies)}
        self._left = {stream: bytearray(grpc(*messages)) for stream, messages in self.messages.items()}
        self._room = dict.fromkeys(self.messages, limits.stream_window)
        self._answered = 0
        self.judge.say(PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, window)) + frame(Kind.SETTINGS, ACK, 0))
        for stream in self.messages:
            self.judge.say(request(stream))

    @property
    def heard(self) -> dict[int, list[bytes]]:
        """The messages that the owner got."""
        return {stream: self.judge.sides[stream].messages for stream in self.messages}

    @property
    def done(self) -> bool:
        return all(self.judge.sides[stream].closed for stream in self.messages)

    def turn(self, stream: int, cut: int, padding: int, more: int, together: int | None = None) -> None:
        """One frame, where there is room for it; then room for `more` bytes on the stream and, unless that is told
        apart, as many for all streams `together`."""
        left = self._left[stream]
        extra = padding + 1 if padding else 0
        size = min(cut, self._room[stream] + self.judge.given[stream] - extra, len(left))
        if size > 0:
            payload = bytes([padding]) * bool(padding) + left[:size] + bytes(padding)
            del left[:size]
            self._room[stream] -= len(payload)
            self.judge.say(frame(Kind.DATA, (PADDED if padding else 0) | (not left), stream, payload))
        if not self.judge.sides[stream].closed:
            self.judge.say(window_update(stream, more))
        if together != 0:
            self.judge.say(window_update(0, more if together is None else together))
        self._answer()

    def _answer(self) -> None:
        for event in self.judge.told[self._answered :]:
            if isinstance(event, MessageReceived):
                self.judge.send(event.stream, event.data)
            elif isinstance(event, HalfClosed):
                self.judge.finish(event.stream)
        self._answered = len(self.judge.told)


class Echoed(Client):
    """The same with messages in the shape of an echo: the owner answers as the connection would, and lets it go on."""

    def __init__(self, limits: WireLimits, bodies: list[list[int]], window: int) -> None:
        self.chunks = [[bytes([65 + i]) * size for size in sizes] for i, sizes in enumerate(bodies)]
        super().__init__(limits, [[] for _ in bodies], window)
        for (stream, messages), chunks in zip(self.messages.items(), self.chunks, strict=True):
            messages += map(shaped, chunks)
            self._left[stream] += grpc(*messages)

    def turn(self, stream: int, cut: int, padding: int, more: int, together: int | None = None) -> None:
        """A frame ends where its message does."""
        behind, left = 0, len(self._left[stream])
        for message in reversed(self.messages[stream]):
            if behind + len(grpc(message)) >= left:
                break
            behind += len(grpc(message))
        super().turn(stream, min(cut, left - behind), padding, more, together)

    @property
    def answered(self) -> list[bytes]:
        """All that was sent on each stream."""
        return [side.answer[: side.sent] for side in map(self.judge.sides.__getitem__, self.messages)]

    @property
    def wanted(self) -> list[bytes]:
        """The same, as it has to be."""
        return [grpc(*(nested(SHAPE.out, chunk) for chunk in chunks)) for chunks in self.chunks]

    def _answer(self) -> None:
        for event in self.judge.told[self._answered :]:
            if isinstance(event, MessageReceived):
                chunk = self.chunks[event.stream // 2][self.messages[event.stream].index(event.data)]
                self.judge.send(event.stream, nested(SHAPE.out, chunk))
                self.judge.connection.echo(event.stream)
            elif isinstance(event, HalfClosed):
                self.judge.finish(event.stream)
        self._answered = len(self.judge.told)
