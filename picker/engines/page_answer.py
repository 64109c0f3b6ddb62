"""One HTTP response that holds a page, as its bytes come in; sans I/O, over httptools' parser.

A scrape asks one thing of one address, hundreds of times a second over the pool: status 200, no encoding, a bound on
every length. Whatever else an engine says is refused in words.
"""

import httptools

MAX_HEAD_BYTES = 64 << 10
"""Of status line, header and the framing of chunks."""


class ScrapeError(Exception):
    """The engine answered, but not with a page that can be read."""


class PageAnswer:
    """`feed` until it gives the page. httptools calls what begins with `on_`; the first refusal stays."""

    def __init__(self, max_bytes: int) -> None:
        self.keeps = False
        """Whether the connection may carry another request, once the page is whole."""
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._refused = ""
        self._received = self._size = 0
        self._parts: list[bytes] = []
        self._headed = self._framed = self._whole = False

    @property
    def begun(self) -> bool:
        """Whether any byte came."""
        return self._received > 0

    def feed(self, data: bytes) -> bytes | None:
        """The page once it is whole, None before. Raises ScrapeError; nothing may be fed then."""
        self._received += len(data)
        if self._received > self._max_bytes + MAX_HEAD_BYTES:
            raise ScrapeError(self._too_long)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise ScrapeError(self._refused or f"no HTTP answer: {error}"[:200]) from None
        if not self._headed and self._received > MAX_HEAD_BYTES:
            raise ScrapeError("header without end")
        return b"".join(self._parts) if self._whole else None

    def end(self) -> bytes:
        """The connection ended: the page, where its end was to say so. Raises ScrapeError where it is cut off."""
        if not self._headed or self._framed:
            raise ScrapeError("the connection ended before the page")
        return b"".join(self._parts)

    def on_message_begin(self) -> None:
        if self._headed:
            self._refuse("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-encoding" if value.strip().lower() != b"identity":
                self._refuse("encoded page, though identity was asked for")
            case b"transfer-encoding":
                self._framed = True
                if value.strip().lower() != b"chunked":
                    self._refuse("a transfer encoding that was not asked for")
            case b"content-length":
                self._framed = True

    def on_headers_complete(self) -> None:
        self._headed, self.keeps = True, self._parser.should_keep_alive()
        status = self._parser.get_status_code()
        if status != 200:
            self._refuse(f"status {status}")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._max_bytes:
            self._refuse(self._too_long)
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self._whole = True

    @property
    def _too_long(self) -> str:
        return f"page over the limit of {self._max_bytes} bytes"

    def _refuse(self, reason: str) -> None:
        """Ends the parser's work. Raises ScrapeError."""
        self._refused = self._refused or reason
        raise ScrapeError(self._refused)
