"""What we send: frames that are ready, and the queues of streams that wait for a window.

A message goes straight to the ready frames when both of the peer's windows let it; else it joins the stream's queue, a
run of bytes that is cut into frames as the windows open. Where there is a queue, one of the two windows is used up, so
nothing can overtake it. Streams that wait for the connection's window alone take turns, a frame each.
"""

from collections import OrderedDict
from typing import Final

from picker.wire import answers
from picker.wire.frames import FRAME_BYTES, HEAD, LARGEST, WHOLE, WINDOW, Broken, Code, Kind
from picker.wire.stream import Stream

_PREFIX_BYTES: Final = 5
_LONGEST_FRAME: Final = 64 << 10
"""Of the peer's maximum frame size we use no more, so that streams get their turns."""


class Outbox:
    """Of one connection. `ready`: frames to write, in order. `waiting`: bytes in streams' queues.

    `ended`: streams whose trailers went out late, after their queue; the connection takes them from here.
    """

    __slots__ = ("_first", "_frame", "_turns", "_window", "ended", "ready", "ready_bytes", "waiting")

    def __init__(self) -> None:
        self.ready: list[bytes | bytearray | memoryview] = []
        self.ready_bytes = 0
        self.waiting = 0
        self.ended: list[Stream] = []
        self._window = WINDOW
        self._frame = FRAME_BYTES
        self._turns: OrderedDict[int, Stream] = OrderedDict()
        self._first = answers.NO_TABLE

    def take(self) -> bytes:
        """Everything ready, joined."""
        joined = b"".join(self.ready)
        self.ready.clear()
        self.ready_bytes = 0
        return joined

    def put(self, frame: bytes) -> None:
        """Send a frame that needs no window."""
        self.ready.append(frame)
        self.ready_bytes += len(frame)

    def message(self, stream: Stream, data: bytes) -> None:
        """Send one message, headers before the first."""
        if not stream.headed:
            stream.headed = True
            self.block(answers.head(stream.id))
        size = len(data) + _PREFIX_BYTES
        if size <= self._window and size <= stream.window:
            self._window -= size
            stream.window -= size
            if size <= self._frame:
                self.ready.append(WHOLE.pack(size << 8, 0, stream.id, 0, size - _PREFIX_BYTES))
                self.ready.append(data)
            else:
                self._pieces(stream.id, data)
            self.ready_bytes += size
        else:
            stream.queue += b"\0" + (size - _PREFIX_BYTES).to_bytes(4, "big")
            stream.queue += data
            self.waiting += size
            self._turn(stream)
            self._flush()

    def _pieces(self, number: int, data: bytes) -> None:
        """A message that is longer than a frame, uncopied."""
        view, at = memoryview(data), self._frame - _PREFIX_BYTES
        self.ready += (WHOLE.pack(self._frame << 8, 0, number, 0, len(data)), view[:at])
        while at < len(data):
            piece = view[at : at + self._frame]
            self.ready += (HEAD.pack(len(piece) << 8, 0, number), piece)
            at += self._frame

    @property
    def room(self) -> tuple[int, int]:
        """Bytes of DATA that the connection's window takes, and that one frame may have."""
        return self._window, self._frame

    def echo(self, frames: bytes, room: int) -> None:
        """Send DATA frames after which the connection's window takes `room`; those of their streams are seen to."""
        self._window = room
        self.put(frames)

    def block(self, frame: bytes) -> None:
        """Send a HEADERS frame; the connection's first one says that we use no table."""
        if self._first:
            word, flags, stream = HEAD.unpack_from(frame)
            frame = HEAD.pack(word + (len(self._first) << 8), flags, stream) + self._first + frame[HEAD.size :]
            self._first = b""
        self.put(frame)

    def drop(self, stream: Stream) -> None:
        """Forget what waits: the stream has ended."""
        self.waiting -= len(stream.queue)
        stream.queue = bytearray()
        self._turns.pop(stream.id, None)

    def open_stream_window(self, stream: Stream, more: int) -> bool:
        """Room for `more` bytes on one stream, or for fewer; False where that is more than a window can be."""
        stream.window += more
        if stream.window > LARGEST:
            return False
        if stream.queue:
            self._turn(stream)
            self._flush()
        return True

    def open_window(self, more: int) -> None:
        """Room for `more` bytes on the connection. Raises `Broken` where that is more than a window can be."""
        self._window += more
        if self._window > LARGEST:
            raise Broken(Code.FLOW_CONTROL_ERROR, "the connection's window overflows")
        self._flush()

    def use_frames_of(self, size: int) -> None:
        """The longest payload that the peer accepts."""
        self._frame = min(size, _LONGEST_FRAME)

    def _turn(self, stream: Stream) -> None:
        """Let it send when the connection's window lets it; a stream without a window of its own waits elsewhere."""
        if stream.window > 0:
            self._turns[stream.id] = stream
        else:
            self._turns.pop(stream.id, None)

    def _flush(self) -> None:
        while self._turns and self._window > 0:
            number, stream = self._turns.popitem(last=False)
            size = min(len(stream.queue), stream.window, self._window, self._frame)
            self.ready.append(HEAD.pack(size << 8 | Kind.DATA, 0, number))
            self.ready.append(stream.queue[:size])
            del stream.queue[:size]
            self.ready_bytes += size
            self.waiting -= size
            self._window -= size
            stream.window -= size
            stream.moved += 1
            if stream.queue:
                self._turn(stream)
            elif stream.trailers is not None:
                self.block(stream.trailers)
                self.ended.append(stream)
