"""Access-log records between worker processes.

Envoy sends its access log to whichever worker its stream reached; the flight id says which worker owns the flight.
One Unix datagram socket per worker in a private folder. Records of one turn of the loop travel together, for a socket
may hold as few as ten datagrams; a full peer is tried again, a missing one loses its records with its flights.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from picker.exchange.access_log import AccessRecord

HEARTBEAT_S = 1.0
SILENT_AFTER_S = 5.0
BATCH = 64
"""Records of one datagram; about 12 KB."""
MAX_WAITING = 10_000
RETRY_S = 0.01
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
        self._worker, self._workers = worker, workers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[AccessRecord]).decode
        self._waiting: dict[int, deque[AccessRecord]] = {i: deque() for i in range(workers) if i != worker}
        self._flushing = False
        self._inbox: asyncio.DatagramTransport | None = None
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
        self._inbox, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=inbox)

    def close(self) -> None:
        """Stop receiving and sending."""
        if self._inbox is not None:
            self._inbox.close()
        self._socket.close()

    def peers_live(self) -> bool:
        """Some peer has an access-log stream and said so lately."""
        return asyncio.get_running_loop().time() - self._heard_at < SILENT_AFTER_S

    def send(self, lane: int, record: AccessRecord) -> bool:
        """Hand a record to the worker that owns its flight; False when too many wait for that worker.

        Lanes go round the workers, once for each pool.
        """
        waiting = self._waiting[lane % self._workers]
        if len(waiting) >= MAX_WAITING:
            return False
        waiting.append(record)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

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
            records = self._decode(data)
        except msgspec.MsgspecError:
            return  # only our own workers can write here: what is torn is lost
        for record in records:
            self._deliver(record)

    def _flush(self) -> None:
        self._flushing = False
        for worker, waiting in self._waiting.items():
            while waiting:
                batch = list(islice(waiting, BATCH))
                if not self._send(worker, self._encode(batch)):
                    break
                for _ in batch:
                    waiting.popleft()
        if any(self._waiting.values()):
            self._flushing = True
            asyncio.get_running_loop().call_later(RETRY_S, self._flush)

    def _tell_all(self, data: bytes) -> None:
        for peer in self._waiting:
            self._send(peer, data)

    def _send(self, worker: int, data: bytes) -> bool:
        """False while the peer is full. What a missing peer should have got is gone, as are its flights."""
        try:
            self._socket.sendto(data, os.fspath(self._path(worker)))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _path(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}.sock"
