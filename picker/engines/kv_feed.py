"""Listen to the engines' KV events: the sockets around `KvStream`, one SUB per endpoint and a DEALER per replay.

One batch is applied per turn of the event loop, whoever sent it, and the endpoints take turns: an engine that floods
us, hangs or dies delays neither the others nor a pick. ZMQ reconnects by itself.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

import zmq
import zmq.asyncio

from picker.engines.index import PrefixIndex
from picker.engines.kv_events import MAX_PAYLOAD_BYTES
from picker.engines.kv_stream import KvCount, KvStream
from picker.pool.view import Endpoint, PoolChange

_END = b"\xff" * 8
"""Sequence number -1: no batch follows."""


@dataclass(frozen=True, slots=True)
class KvFeedSettings:
    """Bounds of the feed: seconds, batches and messages."""

    answer_timeout_s: float = 5.0
    """Wait for one message of a replay."""
    replay_timeout_s: float = 300.0
    """Wait for the end of a replay; many at once share the processor."""
    max_replay_batches: int = 10_000
    """In one replay, after which another one is asked for; as many as vLLM remembers."""
    retry_s: float = 30.0
    """After a failed replay none is tried for so long, then twice as long, up to 16 times; gaps in that time are
    accepted."""
    receive_queue: int = 1000
    """Messages that ZMQ keeps per engine for us; beyond that it drops, which shows as a gap."""


class KvFeed:
    """Keeps a `PrefixIndex` true to what the engines announce. Lives on one event loop.

    `counts` has one entry per slot that is listened to. Call `follow` with each change of the pool; `close` ends all.
    """

    def __init__(
        self, index: PrefixIndex, settings: KvFeedSettings | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.counts: dict[int, KvCount] = {}
        self._index = index
        self._settings = settings or KvFeedSettings()
        self._clock = clock
        self._turn = asyncio.Lock()
        self._context: zmq.asyncio.Context | None = None
        self._watched: dict[int, tuple[Endpoint, KvStream, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_step(self) -> bool:
        """Whether no replay is under way, or needed."""
        return all(stream.wants is None for _, stream, _ in self._watched.values())

    def follow(self, change: PoolChange) -> None:
        """Listen to exactly the endpoints of this view that publish. What a slot that changes hands held is forgotten,
        and nothing of its old endpoint is written after this call."""
        view = change.view
        wanted = {int(s): e for s, e in zip(view.slots, view.endpoints, strict=True) if e.kv_events is not None}
        removed = {slot for slot, _ in change.removed}
        for slot, (endpoint, stream, task) in list(self._watched.items()):
            if slot in removed or slot not in wanted or _sources(wanted[slot]) != _sources(endpoint):
                stream.closed = True
                task.cancel()
                del self._watched[slot], self.counts[slot]
                self._index.clear(slot)
        for slot, endpoint in wanted.items():
            if slot not in self._watched:
                stream = KvStream(slot, self._index, can_replay=endpoint.kv_replay is not None)
                self.counts[slot] = stream.count
                self._watched[slot] = (endpoint, stream, self._start(self._watch(stream, endpoint)))

    async def close(self) -> None:
        """Stop listening. The index stays as it is."""
        for _, stream, _ in self._watched.values():
            stream.closed = True
        self._watched.clear()
        self.counts.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _watch(self, stream: KvStream, endpoint: Endpoint) -> None:
        """Listen until the stream is closed; a socket that breaks is opened anew."""
        while not stream.closed:
            try:
                await self._listen(stream, endpoint)
            except Exception as error:
                # Whatever an engine makes its socket raise is its own failure: told, never the end of the task.
                stream.count.last_error = f"{endpoint.kv_events}: {error}"[:200]
            await asyncio.sleep(self._settings.retry_s)

    async def _listen(self, stream: KvStream, endpoint: Endpoint) -> None:
        replay: asyncio.Task[None] | None = None
        with self._socket(zmq.SUB, self._settings.receive_queue) as socket:
            socket.subscribe(b"")
            socket.connect(endpoint.kv_events or "")
            try:
                while not stream.closed:
                    if endpoint.kv_replay and stream.wants is not None and (replay is None or replay.done()):
                        replay = self._start(self._catch_up(stream, endpoint.kv_replay))
                    frames = await socket.recv_multipart()
                    await self._apply(stream, frames, live=True)
            finally:
                if replay is not None:
                    replay.cancel()

    async def _catch_up(self, stream: KvStream, address: str) -> None:
        """Replay until the stream is in step, or for as long as replays fail."""
        pause_s = self._settings.retry_s
        while stream.wants is not None and not stream.closed:
            complete = False
            try:
                async with asyncio.timeout(self._settings.replay_timeout_s):
                    complete = await self._replay(stream, address, stream.wants)
            except Exception as error:  # as above
                stream.count.last_error = f"replay from {address}: {str(error) or 'timed out'}"[:200]
            stream.replay_ended(complete)
            if stream.can_replay:
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 16 * self._settings.retry_s)
            stream.can_replay = True
            if not stream.whole:
                stream.rebuild()

    async def _replay(self, stream: KvStream, address: str, first: int) -> bool:
        """Fetch one replay; whether its end was told."""
        with self._socket(zmq.DEALER, self._settings.max_replay_batches) as socket:
            socket.connect(address)
            await socket.send_multipart([b"", first.to_bytes(8, "big")])
            for _ in range(self._settings.max_replay_batches):
                async with asyncio.timeout(self._settings.answer_timeout_s):
                    frames = await socket.recv_multipart()
                if len(frames) >= 3 and frames[-2] == _END:
                    return True
                await self._apply(stream, frames, live=False)
                if stream.spoilt or stream.closed:
                    break
        return False

    async def _apply(self, stream: KvStream, frames: list[bytes], *, live: bool) -> None:
        """One message: topic, sequence number, payload (a replay's topic may be missing, as in older vLLM)."""
        async with self._turn:
            if len(frames) < 3 or len(frames[-2]) != 8:
                stream.count.malformed += 1
                stream.count.last_error = f"message of {len(frames)} frames without a sequence number"
            elif live:
                stream.receive(int.from_bytes(frames[-2], "big"), frames[-1], self._clock())
            else:
                stream.replayed(int.from_bytes(frames[-2], "big"), frames[-1])
            await asyncio.sleep(0)

    def _socket(self, kind: int, queue: int) -> zmq.asyncio.Socket:
        if self._context is None:
            self._context = zmq.asyncio.Context()
            self._context.set(zmq.MAX_SOCKETS, min(self._context.get(zmq.SOCKET_LIMIT), 1 << 16))
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RCVHWM, queue)
        socket.set(zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES)
        socket.set(zmq.IPV6, 1)
        socket.set(zmq.RECONNECT_IVL, 100)
        socket.set(zmq.RECONNECT_IVL_MAX, 5000)
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
        return socket


def _sources(endpoint: Endpoint) -> tuple[str, str, str | None, str | None]:
    return endpoint.address, endpoint.name, endpoint.kv_events, endpoint.kv_replay
