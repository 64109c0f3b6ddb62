"""What is made of certificates on disk: anew when they are renewed, in time for the next connection."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Newest(Generic[T]):
    """What is made of some files: anew when they change, and of the last good ones while they are broken."""

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        """Raises OSError, or what `make` raises, when a file is missing or they do not fit."""
        self._files, self._make = files, make
        self._seen, self._made, self._wrong = self._stamp(), make(), ""

    def __call__(self) -> T:
        """`make` may raise OSError or ValueError."""
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._made, self._seen, self._wrong = self._make(), stamp, ""
                log.info("certificate reloaded", folder=str(self._files[0].parent))
        except (OSError, ValueError) as error:
            # Each connection tries anew; the log need not say so.
            if str(error) != self._wrong:
                self._wrong = str(error)
                log.warning("certificate not reloaded", folder=str(self._files[0].parent), reason=self._wrong)
        return self._made

    def _stamp(self) -> tuple[int, ...]:
        return tuple(file.stat().st_mtime_ns for file in self._files)


def renewing(newest: Newest[ssl.SSLContext]) -> ssl.SSLContext:
    """For a server: each new connection goes by the newest one. Whether clients must show certificates is for the first
    to say."""
    first = newest()

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        # Asked for every connection, also of clients that name no server.
        connection.context = newest()

    first.sni_callback = choose
    return first
