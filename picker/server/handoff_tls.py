"""Mutual TLS among a pool's proxies and with their picker: who has a certificate of the pool's own CA is one of them.

Names are not looked at, for pods have addresses that nobody knows beforehand: the CA must certify nothing else.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

LOOK_S = 30.0


class PoolTls:
    """Contexts for listening and for asking, with `tls.crt`, `tls.key` and `ca.crt` of a folder. `keep_current` has new
    connections see what is new there."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError (as ssl.SSLError is) for files that are missing or do not belong together."""
        self._folder, self._seen = folder, _stamp(folder)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.crt")
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.client = ssl.create_default_context(cafile=folder / "ca.crt")
        self.client.check_hostname = False
        self._load()

    def look(self) -> None:
        """Load what has changed; the last good pair stays while it is broken."""
        try:
            stamp = _stamp(self._folder)
            if stamp != self._seen:
                self._load()
                self._seen = stamp
                log.info("certificate reloaded", folder=str(self._folder))
        except OSError as error:
            log.warning("certificate not reloaded", folder=str(self._folder), reason=str(error))

    async def keep_current(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def _load(self) -> None:
        pair = self._folder / "tls.crt", self._folder / "tls.key"
        # A context that a pair does not fit is of no use any more.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair)
        for context in (self.server, self.client):
            context.load_verify_locations(self._folder / "ca.crt")
            context.load_cert_chain(*pair)


def _stamp(folder: Path) -> tuple[int, ...]:
    return tuple((folder / name).stat().st_mtime_ns for name in ("tls.crt", "tls.key", "ca.crt"))
