"""KV events of `picker engine` over ZMQ, as vLLM publishes them: a PUB socket, and a ROUTER that replays the past."""

from collections import deque

import zmq
import zmq.asyncio

KEPT_BATCHES = 10_000
"""Batches that can be asked for again, and that may wait for one slow subscriber."""
_END = (-1).to_bytes(8, "big", signed=True)


class KvEvents:
    """Publishes batches numbered from 0, under `topic`. Raises OSError where it cannot bind."""

    def __init__(self, host: str, port: int, replay_port: int | None) -> None:
        """Port 0 takes a free one."""
        self._context = zmq.Context()
        self._pub = self._context.socket(zmq.PUB)
        self._router = None if replay_port is None else zmq.asyncio.Socket(self._context, zmq.ROUTER)
        self.endpoint = self._bind(self._pub, host, port)
        self.replay_endpoint = None if self._router is None else self._bind(self._router, host, replay_port or 0)
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT_BATCHES)
        self._next = 0
        self.topic = b""

    def publish(self, payload: bytes) -> None:
        """Send one batch; a subscriber that is too slow loses it and may ask for it again."""
        number = self._next
        self._next += 1
        self._kept.append((number, payload))
        # PUB never blocks: it drops for whoever is full.
        self._pub.send_multipart([self.topic, number.to_bytes(8, "big"), payload])

    async def answer_replays(self) -> None:
        """Serve [b"", start: 8 bytes] until cancelled; anything else is ignored."""
        if self._router is None:
            return
        while True:
            asked = await self._router.recv_multipart()
            if len(asked) != 3 or len(asked[2]) != 8:
                continue
            client, start = asked[0], int.from_bytes(asked[2], "big")
            for number, payload in [kept for kept in self._kept if kept[0] >= start]:
                await self._router.send_multipart([client, b"", self.topic, number.to_bytes(8, "big"), payload])
            await self._router.send_multipart([client, b"", b"", _END, b""])

    def close(self) -> None:
        self._pub.close(linger=0)
        if self._router is not None:
            self._router.close(linger=0)
        self._context.term()

    def _bind(self, socket: "zmq.Socket[bytes] | zmq.asyncio.Socket", host: str, port: int) -> str:
        socket.set_hwm(KEPT_BATCHES)
        try:
            socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, f"cannot bind KV events to {host}:{port}: {error}") from error
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
