"""Messages that go back as they came but for their wrapping, answered in machine code: no object is made of one.

A message is a chain of nested protobuf fields with bytes in the innermost, and its answer is another chain around the
same bytes (`Shape`). Where the owner would say just that to every such message of a stream, it says so once
(`Connection.echo`). Whatever else comes on the stream or is said of it ends that: frames of another kind, a message of
another shape, one with the word that the owner looks for, one that the windows have no room for.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from picker.wire.stream import Stream

_PLACES: Final = 1024
"""Of streams whose numbers lie no further apart all have a place; of two with the same one, the first has it."""
_OUT_BYTES: Final = 1 << 19
_ALPHABET: Final = 256
_TAKEN, _WINDOW, _COLUMNS = 1, 2, 3
"""Behind the stream's number."""
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])
# No count of who uses each array that is handed on: none is made here.
_HOW: Final[dict[str, Any]] = {"cache": True, "_nrt": False}


class Shape(NamedTuple):
    """What is answered, and how. Fields have numbers below 16, and so tags of one byte; lengths are written shortest.

    `into`, `out`: tags of the chain that comes and of the chain that goes, outermost first. `behind`: tag of a field
    that may follow the outermost one. `word`: at least two bytes; bytes that contain it or may end in the midst of it
    are the owner's to look at, unless `harmless` follows it.
    """

    into: bytes
    out: bytes
    behind: int
    word: bytes
    harmless: bytes


def _compiled(function: _Kernel) -> _Kernel:
    return cast(_Kernel, njit(**_HOW)(function))


class Echo:
    """A shape, ready for use by all connections of one thread."""

    __slots__ = ("_out", "_skip", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._out = np.empty(_OUT_BYTES, np.uint8)
        # Horspool: how far to go on from a byte that the word's last one was held against.
        self._skip = np.full(_ALPHABET, len(shape.word), np.uint8)
        for place, byte in enumerate(shape.word[:-1]):
            self._skip[byte] = len(shape.word) - 1 - place
        # Compiled, or loaded as an earlier process compiled it, before anybody waits for it.
        self.answers(b"", 0, np.zeros(_PLACES * _COLUMNS, np.int64), 0, 0, 0, 0)

    def answers(
        self, data: bytes, at: int, cells: NDArray[np.int64], half: int, longest: int, room: int, frame: int
    ) -> tuple[int, int, int, bytes]:
        """Answer frames from `at` on, as many as one after the other are for here: where the first other one begins,
        bytes of payload that came, room that is left, frames to send.

        At most `half` of the window of each stream may be taken, and frames that come have at most `longest` bytes of
        payload; what is sent has `room`, and at most `frame` bytes in a frame.
        """
        into, out, behind, word, harmless = self.shape
        at, came, room, used = _answers(
            data, at, cells, half, longest, room, frame, into, out, behind, word, harmless, self._skip, self._out
        )
        return at, came, room, self._out[:used].tobytes()


class Lanes:
    """The streams of one connection whose messages are answered here. `streams`: by number.

    What of a stream changes by it, `taken` and `window`, lies here meanwhile: `close` gives it back.
    """

    __slots__ = ("_cells", "_echo", "_view", "streams")

    def __init__(self, echo: Echo | None) -> None:
        self.streams: dict[int, Stream] = {}
        self._echo = echo
        self._cells: NDArray[np.int64] | None = None
        self._view = memoryview(b"")

    def open(self, stream: Stream) -> None:
        """Answer its messages from now on, if there is a shape and a place for it."""
        if self._echo is None:
            return
        if self._cells is None:
            self._cells = np.zeros(_PLACES * _COLUMNS, np.int64)
            self._view = self._cells.data
        view, at = self._view, _place(stream.id)
        if view[at] in (0, stream.id):
            view[at], view[at + _TAKEN], view[at + _WINDOW] = stream.id, stream.taken, stream.window
            self.streams[stream.id] = stream

    def close(self, number: int) -> None:
        """Answer no more of its messages."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            view, at = self._view, _place(number)
            view[at], stream.taken, stream.window = 0, view[at + _TAKEN], view[at + _WINDOW]

    def close_all(self) -> None:
        """The same of all streams."""
        for number in [*self.streams]:
            self.close(number)

    def answers(
        self, data: bytes, at: int, half: int, longest: int, room: int, frame: int
    ) -> tuple[int, int, int, bytes]:
        """`Echo.answers`, for the streams here."""
        assert self._echo is not None  # or no stream would be here
        assert self._cells is not None
        return self._echo.answers(data, at, self._cells, half, longest, room, frame)


def _place(number: int) -> int:
    """Where a stream's numbers begin; clients' streams are odd."""
    return (number >> 1 & _PLACES - 1) * _COLUMNS


@_compiled
def _length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A length of one or two bytes, and where what it is of begins; -1 for any other, and for one past the end."""
    if at >= end:
        return -1, at
    size, at = int(data[at]), at + 1
    if size >= 0x80:
        if at >= end or not 0 < data[at] < 0x80:
            return -1, at
        size, at = size - 0x80 + (int(data[at]) << 7), at + 1
    return (size, at) if at + size <= end else (-1, at)


@_compiled
def _inside(data: bytes, at: int, end: int, into: bytes, behind: int) -> tuple[int, int]:
    """Where the innermost bytes of a message begin and end; nowhere, 0 and 0, for a message of another shape."""
    for level in range(len(into)):
        if at >= end or data[at] != into[level]:
            return 0, 0
        size, at = _length(data, at + 1, end)
        if size < 0:
            return 0, 0
        if at + size < end:
            if level or data[at + size] != behind:
                return 0, 0
            rest, start = _length(data, at + size + 1, end)
            if rest < 0 or start + rest != end:
                return 0, 0
        end = at + size
    return at, end


@_compiled
def _stands(data: bytes, at: int, end: int, what: bytes, many: int) -> bool:
    """Whether so many bytes of `what` stand here."""
    if at + many > end:
        return False
    same = 0
    while same < many and data[at + same] == what[same]:
        same += 1
    return same == many


@_compiled
def _is_said(data: bytes, begin: int, end: int, word: bytes, harmless: bytes, skip: NDArray[np.uint8]) -> bool:
    """Whether the word is there, without what makes it harmless, or may be cut off by the end."""
    size = len(word)
    at = begin + size - 1
    while at < end:
        if _stands(data, at + 1 - size, end, word, size) and not _stands(data, at + 1, end, harmless, len(harmless)):
            return True
        at += skip[data[at]]
    begun = min(size - 1, end - begin)
    while begun and not _stands(data, end - begun, end, word, begun):
        begun -= 1
    return begun > 0


@_compiled
def _digits(size: int) -> int:
    """Bytes of a length."""
    digits = 1
    while size >= 0x80:
        size >>= 7
        digits += 1
    return digits


@_compiled
def _answers(
    data: bytes,
    at: int,
    cells: NDArray[np.int64],
    half: int,
    longest: int,
    room: int,
    frame: int,
    into: bytes,
    out: bytes,
    behind: int,
    word: bytes,
    harmless: bytes,
    skip: NDArray[np.uint8],
    sent: NDArray[np.uint8],
) -> tuple[int, int, int, int]:
    """As `Echo.answers`, but with how many bytes of `sent` are used instead of the bytes."""
    end, received, used = len(data), 0, 0
    while end - at >= 14:
        # A DATA frame without flags, with one whole message that is not compressed.
        payload = int(data[at]) << 16 | int(data[at + 1]) << 8 | int(data[at + 2])
        number = int(data[at + 5]) << 24 | int(data[at + 6]) << 16 | int(data[at + 7]) << 8 | int(data[at + 8])
        length = int(data[at + 10]) << 24 | int(data[at + 11]) << 16 | int(data[at + 12]) << 8 | int(data[at + 13])
        stop = at + 9 + payload
        if data[at + 3] or data[at + 4] or data[at + 9] or payload > longest or length != payload - 5 or stop > end:
            break
        own = ((number >> 1) & (_PLACES - 1)) * _COLUMNS
        if cells[own] != number or cells[own + _TAKEN] + payload > half:
            break
        begin, close = _inside(data, at + 14, stop, into, behind)
        if begin == close or _is_said(data, begin, close, word, harmless, skip):
            break
        size = close - begin
        whole = size
        for _ in range(len(out)):
            whole += 1 + _digits(whole)
        if whole + 5 > min(cells[own + _WINDOW], room, frame) or used + 14 + whole > len(sent):
            break
        for i in range(9):
            sent[used + i] = data[at + i]
        for i in range(3):
            sent[used + i] = ((whole + 5) >> (16 - 8 * i)) & 0xFF
        sent[used + 9] = 0
        for i in range(4):
            sent[used + 10 + i] = (whole >> (24 - 8 * i)) & 0xFF
        # From the inside out: the length of each is that of all within.
        to = used + 14 + whole - size
        for i in range(size):
            sent[to + i] = data[begin + i]
        within = size
        for level in range(len(out) - 1, -1, -1):
            digits = _digits(within)
            to -= digits + 1
            sent[to] = out[level]
            rest = within
            for i in range(digits):
                sent[to + 1 + i] = (rest & 0x7F) | (0x80 if i < digits - 1 else 0)
                rest >>= 7
            within += digits + 1
        cells[own + _TAKEN] += payload
        cells[own + _WINDOW] -= whole + 5
        room -= whole + 5
        received += payload
        used += 14 + whole
        at = stop
    return at, received, room, used
