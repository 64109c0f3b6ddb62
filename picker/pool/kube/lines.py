"""A byte stream cut into lines, bounded."""

MAX_LINE = 16 * 1024 * 1024
"""An API server's objects have at most 1.5 MiB as it stores them; as JSON they are larger."""


class Lines:
    """Feed chunks, cut anywhere; get whole lines."""

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self._max_line = max_line
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, without their ends; empty ones are left out. Raises ValueError on a line
        over the bound.

        >>> lines = Lines()
        >>> lines.feed(b'{"a":1}\\n{"b'), lines.feed(b'":2}\\n')
        ([b'{"a":1}'], [b'{"b":2}'])
        """
        *ends, rest = chunk.split(b"\n")
        if ends:
            ends[0] = b"".join((*self._parts, ends[0]))
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        if self._size > self._max_line or any(len(line) > self._max_line for line in ends):
            raise ValueError(f"a line of more than {self._max_line} bytes")
        return [line for line in ends if line.strip()]
