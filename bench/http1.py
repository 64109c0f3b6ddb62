"""Just enough HTTP/1.1 for both ends of the bench: whole messages out of a byte stream, one at a time, sans-I/O.

Client and backends share a core with what is measured, so they parse with `bytes.find` and nothing else.
"""

import re
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Message:
    """One complete message: the head up to its empty line, and the body without framing."""

    head: bytes
    body: bytes

    @property
    def start_line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]


class MessageReader:
    """Bytes in, complete messages out. Raises ValueError for what is no HTTP/1.1."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: bytes | None = None
        self._left: int | None = 0
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Message | None:
        """Take what was read; the message that it completes, if it does. What follows is kept for the next call."""
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            length = _LENGTH.search(self._head)
            self._left = None if _CHUNKED.search(self._head) else int(length[1]) if length else 0
        if self._left is None:
            return self._message() if self._chunks() else None
        if len(self._buffer) < self._left:
            return None
        self._parts.append(bytes(self._buffer[: self._left]))
        del self._buffer[: self._left]
        return self._message()

    def _chunks(self) -> bool:
        """Move whole chunks to the body; whether the last one came."""
        buffer, at = self._buffer, 0
        try:
            while (line := buffer.find(b"\r\n", at)) >= 0:
                size = int(buffer[at:line], 16)
                after = line + 2 + size + 2
                if after > len(buffer):
                    return False
                self._parts.append(bytes(buffer[line + 2 : after - 2]))
                at = after
                if size == 0:
                    return True
            return False
        finally:
            del buffer[:at]

    def _message(self) -> Message:
        assert self._head is not None  # only called behind a head
        message = Message(self._head, b"".join(self._parts))
        self._head, self._parts = None, []
        return message
