"""An engine's KV-event side for tests: it numbers its batches, remembers them, publishes and replays."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import zmq
import zmq.asyncio

BLOCK_SIZE = 4
END = b"\xff" * 8


def tokens(*blocks: int) -> list[int]:
    """Token ids of some blocks, told apart by their number."""
    return [BLOCK_SIZE * block + i for block in blocks for i in range(BLOCK_SIZE)]


def stored(keys: list[Any], blocks: list[int], parent: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": keys,
        "parent_block_hash": parent,
        "token_ids": tokens(*blocks),
        "block_size": BLOCK_SIZE,
        "medium": "GPU",
        **more,
    }


def removed(*keys: Any, **more: Any) -> dict[str, Any]:
    return {"type": "BlockRemoved", "block_hashes": list(keys), "medium": "GPU", **more}


CLEARED = {"type": "AllBlocksCleared"}


def payload(*events: Any, ts: float = 1.0, rank: int | None = 0) -> bytes:
    return msgspec.msgpack.encode([ts, list(events), rank])


class History:
    """What one life of an engine has published: payloads by number, with times that grow."""

    def __init__(self, born: float = 1000.0) -> None:
        self.born = born
        self.payloads: list[bytes] = []

    def add(self, *events: Any) -> tuple[int, bytes]:
        seq = len(self.payloads)
        self.payloads.append(payload(*events, ts=self.born + seq))
        return seq, self.payloads[seq]


class FakeEngine:
    """PUB and ROUTER sockets over a history, on ports of their own choice."""

    def __init__(self) -> None:
        self.history = History()
        self.replays: list[int] = []
        """First batches that replays were asked from."""
        self.events = ""
        self.replay = ""
        self._asked: asyncio.Queue[int] = asyncio.Queue()
        self._muted = False
        self._context = zmq.asyncio.Context()
        self._pub = self._context.socket(zmq.XPUB)
        self._router = self._context.socket(zmq.ROUTER)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeEngine"]:
        for socket in (self._pub, self._router):
            socket.set(zmq.LINGER, 0)
        self.events = f"tcp://127.0.0.1:{self._pub.bind_to_random_port('tcp://127.0.0.1')}"
        self.replay = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        answering = asyncio.create_task(self._answer())
        try:
            yield self
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            self._context.destroy(linger=0)

    async def subscribed(self) -> None:
        """Somebody listens."""
        await self._pub.recv()

    async def asked(self) -> int:
        """The first batch of the next replay that was asked for."""
        return await self._asked.get()

    def mute(self) -> None:
        """Answer no replay any more."""
        self._muted = True

    def unmute(self) -> None:
        self._muted = False

    async def publish(self, *events: Any) -> None:
        seq, data = self.history.add(*events)
        await self.send(seq, data)

    async def send(self, seq: int, data: bytes) -> None:
        await self.send_frames(b"kv@test", seq.to_bytes(8, "big"), data)

    async def send_frames(self, *frames: bytes) -> None:
        await self._pub.send_multipart(frames)

    async def _answer(self) -> None:
        while True:
            client, _, first = await self._router.recv_multipart()
            start = int.from_bytes(first, "big")
            self.replays.append(start)
            self._asked.put_nowait(start)
            if self._muted:
                continue
            for seq, data in enumerate(list(self.history.payloads)):
                if seq >= start:
                    await self._router.send_multipart([client, b"", b"kv@test", seq.to_bytes(8, "big"), data])
            await self._router.send_multipart([client, b"", b"", END, b""])
