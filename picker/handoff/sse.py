"""Server-sent events out of bytes in any pieces (WHATWG HTML, section 9.2)."""

from typing import Any

import msgspec

MAX_EVENT_BYTES = 16 << 20
"""A first event may carry a prompt of a million token ids."""

DONE = b"data: [DONE]\n\n"


class Events:
    """The data of each event that is complete; other fields and comments are left out."""

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Raises ValueError for an event larger than the limit."""
        whole: list[bytes] = []
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._line += line
            self._take(bytes(self._line).removesuffix(b"\r"), whole)
            self._line.clear()
        self._line += rest
        if self._size + len(self._line) > self._limit:
            raise ValueError(f"an event of more than {self._limit} bytes")
        return whole

    def _take(self, line: bytes, whole: list[bytes]) -> None:
        if not line:
            if self._data:
                whole.append(b"\n".join(self._data))
            self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)


def event(body: Any) -> bytes:
    """One event as vLLM writes it."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
