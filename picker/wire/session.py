"""The state of a connection, and every way in which a stream begins, goes on and ends.

`connection.py` is what an owner calls, `incoming.py` what a peer's frames do; both act through here.
"""

import math
from typing import Final

from picker.wire import answers
from picker.wire.assembly import Assembly
from picker.wire.budget import Budget
from picker.wire.echo import Echo, Lanes
from picker.wire.events import Event, HalfClosed, MessageReceived, Reason, StreamEnded, StreamOpened
from picker.wire.frames import WINDOW, Broken, Code, Setting, go_away, rst_stream, settings, window_update
from picker.wire.headers import Head, HeaderBlocks, Refusal
from picker.wire.limits import WireLimits
from picker.wire.outbox import Outbox
from picker.wire.stream import Closed, Refused, Stream
from picker.wire.watch import Watch

_CLOSED_REMEMBERED: Final = 1024


class Session:
    """Of one connection. `events`: what the owner has not heard yet. `last`: the peer's highest stream so far.

    `quick`: the streams whose DATA may be read without a look at the connection's state: none before the peer's
    SETTINGS and none within a header block, else all. `block`: the header block that has begun, with `block_stream`
    and, in `block_ends`, its END_STREAM. `pieces`: of how many frames it is so far. `taken`: bytes received for which
    the connection was given no room back. `accepts`: streams above it are not looked at any more. `lanes`: streams
    that are answered without their owner.
    """

    def __init__(self, limits: WireLimits, now: float, echo: Echo | None = None) -> None:
        self.limits = limits
        self.now = now
        self.lanes = Lanes(echo)
        self.events: list[Event] = []
        self.closing = False
        self.closed_because = ""
        self.streams: dict[int, Stream] = {}
        self.quick: dict[int, Stream] = {}
        self.started = False
        self.last = 0
        self.block: bytearray | None = None
        self.block_stream = 0
        self.block_ends = False
        self.pieces = 0
        self.taken = 0
        self.draining = False
        self.accepts = math.inf
        self.peer_window = WINDOW
        self.outbox = Outbox()
        self.blocks = HeaderBlocks(limits.header_bytes)
        self.assembly = Assembly(limits.assembling)
        self.watch = Watch(limits, now)
        self.closed = Closed(_CLOSED_REMEMBERED)
        self.chatter = Budget(limits.idle_frames_per_s, limits.idle_frames, now)
        self.resets = Budget(limits.resets_per_s, limits.resets, now)
        self.outbox.put(
            settings(
                {
                    Setting.HEADER_TABLE_SIZE: 0,
                    Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                    Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
                    Setting.MAX_HEADER_LIST_SIZE: limits.header_bytes,
                }
            )
        )
        if limits.connection_window > WINDOW:
            self.outbox.put(window_update(0, limits.connection_window - WINDOW))

    def idle_frame(self, cost: float = 1) -> None:
        """A frame came that brings no request nearer to its answer. Raises `Broken` when they are too many."""
        if not self.chatter.spend(cost, self.now):
            raise Broken(Code.ENHANCE_YOUR_CALM, "too many frames without use")

    def wasted(self) -> None:
        """A stream was begun in vain. Raises `Broken` when they are too many."""
        if not self.resets.spend(1, self.now):
            raise Broken(Code.ENHANCE_YOUR_CALM, "too many streams begun in vain")

    def open(self, number: int, head: Head, ended: bool) -> None:
        """A request: opened, or answered at once when it cannot be served."""
        self.last = number
        if number > self.accepts:
            self.closed.add(number, late_frames=True)
            self.wasted()
        elif head.malformed or len(self.streams) >= self.limits.streams:
            self.closed.add(number, late_frames=not ended)
            self.outbox.put(rst_stream(number, Code.PROTOCOL_ERROR if head.malformed else Code.REFUSED_STREAM))
            self.wasted()
        elif head.refusal is not None:
            self.closed.add(number, late_frames=not ended)
            self.outbox.block(_answer(number, head.refusal))
            if not ended:
                self.outbox.put(rst_stream(number, Code.NO_ERROR))
        else:
            deadline = self.now + head.timeout
            stream = Stream(number, deadline, self.peer_window, head.packed, head.length, self.watch.clock)
            self.streams[number] = stream
            if deadline < math.inf:
                self.watch.expect(stream, self.streams)
            self.events.append(StreamOpened(number, head.path, head.metadata, deadline))
            if ended:
                self.half_close(stream)

    def half_close(self, stream: Stream) -> None:
        """END_STREAM came."""
        stream.remote_closed = True
        stream.weigh()
        if stream.length > 0:
            self.fail(stream, Code.PROTOCOL_ERROR)
        elif stream.partial:
            self.refuse(stream, Refused(answers.INTERNAL, "the stream ends within a message"))
        elif stream.trailers is None:
            self.events.append(HalfClosed(stream.id))

    def content(self, stream: Stream, data: bytes) -> bool:
        """Bytes of messages, as they came; whether any message is whole by them."""
        if stream.trailers is not None:
            return False
        before = len(stream.partial)
        try:
            found = stream.messages(data, self.limits.message_bytes)
        except Refused as refused:
            self.assembly.changed(stream, -before, again=True)
            self.refuse(stream, refused)
            return False
        self.events.extend(MessageReceived(stream.id, message) for message in found)
        if not self.assembly.changed(stream, len(stream.partial) - before, again=bool(found)):
            self.refuse(stream, Refused(answers.RESOURCE_EXHAUSTED, "too many messages under way"))
        elif found:
            self.room_for_waiting()
        return bool(found)

    def room(self, stream: Stream) -> None:
        """Give a stream room back, once for every half of its window."""
        if 2 * stream.taken <= self.limits.stream_window or stream.held or stream.remote_closed:
            return
        if self.assembly.lets(stream):
            self.outbox.put(window_update(stream.id, stream.taken))
            stream.taken = 0
            stream.moved += 1

    def room_for_waiting(self) -> None:
        """Messages that were not to go on for the others' sake may have their turn."""
        for stream in self.assembly.waiting():
            self.room(stream)

    def finish(self, stream: Stream, status: int, message: str) -> None:
        """The call's status, after its messages."""
        block = answers.trailers if stream.headed else answers.trailers_only
        stream.trailers = block(stream.id, status, message)
        if stream.queue:
            stream.weigh()
            self.assembly.forget(stream)
            self.room_for_waiting()
        else:
            self.outbox.block(stream.trailers)
            self.end(stream)

    def refuse(self, stream: Stream, refused: Refused) -> None:
        """The call breaks a rule of gRPC: its status now, whatever waits to be sent."""
        self._tell_end(stream, Reason.REFUSED)
        self.cut(stream, refused.status, refused.message, unpacked=refused.unpacked)

    def cut(self, stream: Stream, status: int, message: str, *, unpacked: bool = False) -> None:
        """End the call with a status before its time."""
        self.outbox.drop(stream)
        if stream.headed:
            self.outbox.block(answers.trailers(stream.id, status, message))
        else:
            self.outbox.block(answers.trailers_only(stream.id, status, message, unpacked=unpacked))
        self.end(stream)

    def fail(self, stream: Stream, code: Code) -> None:
        """A stream error: the peer broke a rule of HTTP/2. Raises `Broken` when it does so too often."""
        self._tell_end(stream, Reason.REFUSED)
        self.reset(stream, code)
        self.wasted()

    def overdue(self, stream: Stream) -> None:
        """The call's deadline has passed."""
        self._tell_end(stream, Reason.DEADLINE)
        self.cut(stream, answers.DEADLINE_EXCEEDED, "the deadline has passed")

    def stalled(self, stream: Stream) -> None:
        """The peer has stopped in the middle of something."""
        self._tell_end(stream, Reason.STALLED)
        self.reset(stream, Code.CANCEL)

    def reset(self, stream: Stream, code: int) -> None:
        """Break off."""
        self.outbox.put(rst_stream(stream.id, code))
        self._forget(stream, late_frames=not stream.remote_closed)

    def reset_by_peer(self, stream: Stream) -> None:
        """The peer broke off. Raises `Broken` when it does so too often before it has an answer."""
        self._tell_end(stream, Reason.RESET)
        self._forget(stream, late_frames=False)
        if not stream.headed:
            self.wasted()

    def end(self, stream: Stream) -> None:
        """END_STREAM has gone out. Who still sends is told that nobody listens (RFC 9113 section 8.1)."""
        if not stream.remote_closed:
            self.outbox.put(rst_stream(stream.id, Code.NO_ERROR))
        if stream.headed:
            self.resets.earn(1)
        self._forget(stream, late_frames=not stream.remote_closed)

    def end_late(self) -> None:
        """Streams whose queue and trailers are out by now."""
        while self.outbox.ended:
            self.end(self.outbox.ended.pop())

    def bounded(self) -> None:
        """Hold what waits to be sent to its limit: the longest queue is given up, or the whole connection when it is
        the socket that takes nothing."""
        limit = self.limits.queued_bytes
        if self.outbox.ready_bytes > limit:
            self.outbox.take()
            self.break_off(Broken(Code.ENHANCE_YOUR_CALM, "nobody reads our answers"))
        elif self.outbox.ready_bytes + self.outbox.waiting > limit:
            self.stalled(max(self.streams.values(), key=lambda stream: len(stream.queue)))

    def break_off(self, broken: Broken) -> None:
        """A connection error, or the orderly last word with NO_ERROR: every stream ends."""
        if not self.closing:
            self.outbox.put(go_away(self.last, broken.code, broken.why))
            self.closed_because = broken.why
        self.lose()

    def lose(self) -> None:
        """Every open stream ends with the connection."""
        self.closing = True
        self.block = None
        for stream in list(self.streams.values()):
            self._tell_end(stream, Reason.CONNECTION)
            self._forget(stream, late_frames=False)

    def _tell_end(self, stream: Stream, reason: Reason) -> None:
        """Once; and not of a stream that the owner has finished."""
        if stream.trailers is None:
            self.events.append(StreamEnded(stream.id, reason))

    def _forget(self, stream: Stream, *, late_frames: bool) -> None:
        if stream.id in self.lanes.streams:
            self.lanes.close(stream.id)
        del self.streams[stream.id]
        if stream.queue:
            self.outbox.drop(stream)
        self.closed.add(stream.id, late_frames)
        if stream.partial:
            self.assembly.forget(stream)
            self.room_for_waiting()
        if self.draining:
            self.close_when_drained()

    def close_when_drained(self) -> None:
        """Draining is over once the peer knows that no more streams are looked at, and the last one has ended."""
        if self.accepts < math.inf and not self.streams:
            self.closing = True


def _answer(number: int, refusal: Refusal) -> bytes:
    if refusal.http != 200:
        return answers.http_only(number, refusal.http)
    return answers.trailers_only(number, refusal.status, refusal.message)
