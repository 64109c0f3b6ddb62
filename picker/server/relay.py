"""Access-log records between worker processes.

Envoy sends its access log to whichever worker its stream reached; the flight id says which worker owns the flight.
One Unix datagram socket per worker in a private folder; a full or missing peer loses a record, never blocks: the
ledger's sweep catches what is lost.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from picker.exchange.access_log import AccessRecord

HEARTBEAT_S = 1.0
SILENT_AFTER_S = 5.0
ALIVE = b""
BROKEN = b"!"


class Mailbox(asyncio.DatagramProtocol):
    """This worker's inbox and its peers' addresses. `deliver` gets records, `broken` is told of a peer's lost log."""

    def __init__(
        self,
        folder: Path,
        worker: int,
        workers: int,
        deliver: Callable[[AccessRecord], None],
        broken: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._worker = worker
        self._workers = workers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(AccessRecord).decode
        self._heard_at = float("-inf")
        self._deliver = deliver
        self._broken = broken

    async def open(self) -> None:
        """Start receiving. Raises OSError when the folder is not writable."""
        path = self._path(self._worker)
        path.unlink(missing_ok=True)
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        inbox.setblocking(False)
        inbox.bind(os.fspath(path))
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=inbox)

    def peers_live(self) -> bool:
        """Some peer has an access-log stream and said so lately."""
        return asyncio.get_running_loop().time() - self._heard_at < SILENT_AFTER_S

    def send(self, worker: int, record: AccessRecord) -> bool:
        """Hand a record to the worker that owns its flight; False when it cannot take it now."""
        return 0 <= worker < self._workers and self._send(worker, self._encode(record))

    def say_alive(self) -> None:
        """Tell all peers that access logs reach this worker. Call every HEARTBEAT_S while they do."""
        self._tell_all(ALIVE)

    def say_broken(self) -> None:
        """Tell all peers that an access log broke off."""
        self._tell_all(BROKEN)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data == BROKEN:
            self._broken()
            return
        self._heard_at = asyncio.get_running_loop().time()
        if data == ALIVE:
            return
        try:
            record = self._decode(data)
        except msgspec.MsgspecError:
            return  # only our own workers can write here: a torn record is one lost record
        self._deliver(record)

    def _tell_all(self, data: bytes) -> None:
        for peer in range(self._workers):
            if peer != self._worker:
                self._send(peer, data)

    def _send(self, worker: int, data: bytes) -> bool:
        try:
            self._socket.sendto(data, os.fspath(self._path(worker)))
        except OSError:
            return False
        return True

    def _path(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.sock"
