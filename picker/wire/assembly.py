"""All messages that have begun to arrive on a connection, together.

Room given for the rest of each of many long messages adds up. Past half of the limit only the message that began first
is given more, so it will be whole and make place. A stream that goes past the limit is refused: none has to be while
the longest message and every stream's window fit into the other half.
"""

from collections import OrderedDict

from picker.wire.stream import Stream


class Assembly:
    """`total`: bytes of unfinished messages."""

    __slots__ = ("_begun", "_limit", "_parked", "total")

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._begun: OrderedDict[int, Stream] = OrderedDict()
        self._parked: dict[int, Stream] = {}

    def changed(self, stream: Stream, grown: int, again: bool) -> bool:
        """A stream's unfinished message is `grown` bytes longer; `again`: it is another one than before. False where
        that is more than we hold."""
        self.total += grown
        if again:
            self._begun.pop(stream.id, None)
        if stream.partial:
            self._begun[stream.id] = stream
        else:
            self._unpark(stream)
        return self.total <= self._limit

    def forget(self, stream: Stream) -> None:
        """The stream has ended, or nobody wants its messages any more."""
        self.total -= len(stream.partial)
        stream.partial = bytearray()
        self._begun.pop(stream.id, None)
        self._unpark(stream)

    def lets(self, stream: Stream) -> bool:
        """Whether the stream may be given room. If not, it is among those who wait."""
        if not stream.partial or 2 * self.total <= self._limit or stream is next(iter(self._begun.values())):
            self._unpark(stream)
            return True
        stream.parked = True
        self._parked[stream.id] = stream
        return False

    def waiting(self) -> list[Stream]:
        """Those who wait and may go on by now."""
        if not self._parked:
            return []
        if 2 * self.total <= self._limit:
            return list(self._parked.values())
        first = next(iter(self._begun.values()))
        return [first] if first.parked else []

    def _unpark(self, stream: Stream) -> None:
        if stream.parked:
            stream.parked = False
            del self._parked[stream.id]
