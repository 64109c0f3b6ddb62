"""Mutual TLS among a pool's proxies and with their picker: who has a certificate of the pool's own CA is one of them.

Names are not looked at, for pods have addresses that nobody knows beforehand: the CA must certify nothing else.
"""

import ssl
from pathlib import Path

from picker.server.renewed import Newest, renewing


class PoolTls:
    """For listening and for asking, with `tls.crt`, `tls.key` and `ca.crt` of a folder. Each new connection sees the
    newest that fit."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError (as ssl.SSLError is) for files that are missing or do not belong together."""
        files = [folder / name for name in ("tls.crt", "tls.key", "ca.crt")]
        self.server = renewing(Newest(files, lambda: _context(folder, ssl.Purpose.CLIENT_AUTH)))
        self._client = Newest(files, lambda: _context(folder, ssl.Purpose.SERVER_AUTH))

    @property
    def client(self) -> ssl.SSLContext:
        """For the next question: another one after a change, so that no connection from before it is taken again."""
        return self._client()


def _context(folder: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cafile=folder / "ca.crt")
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context
