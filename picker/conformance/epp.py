"""An EPP on the wire: streams to it, each read and write with a deadline."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from picker.conformance import heard, messages
from picker.conformance.case import Broken, NotAsked
from picker.conformance.heard import Replies
from picker.proto.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

T = TypeVar("T")
EXT_PROC = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
MOST_REPLIES = 5000
"""More than any case has reason to expect of one stream."""
WRITE_FAILED = "Internal error from Core"
"""What grpcio says, in place of the status that came, of a stream that ended while a message was being written."""
LIMITS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


class Ended(Broken):
    """The stream ended with OK where a reply was due."""


class Silent(Broken):
    """No reply came in time."""


class Stream:
    """One HTTP request's ext_proc stream, seen from the gateway. `replies` are all that came so far."""

    def __init__(self, call: Any, patience_s: float) -> None:
        self.replies: list[ProcessingResponse] = []
        self._call, self._patience_s = call, patience_s
        self._come: asyncio.Queue[ProcessingResponse | Broken | None] = asyncio.Queue(MOST_REPLIES)
        # A read that is given up would cancel the stream; so one task reads, and the queue is waited for.
        self._reading = asyncio.create_task(self._read())

    async def say(self, *said: ProcessingRequest) -> None:
        """Send; an EPP that has ended the stream is not spoken to any more. Raises Broken when it takes nothing."""
        for message in said:
            if self._reading.done():
                return
            try:
                await asyncio.wait_for(self._call.write(message.SerializeToString()), self._patience_s)
            except TimeoutError:
                raise Broken(f"no message is taken within {self._patience_s:g} s") from None
            except (asyncio.InvalidStateError, grpc.RpcError):
                return

    async def hear(self) -> ProcessingResponse:
        """The next reply. Raises Broken when none comes or the stream has ended."""
        try:
            come = await asyncio.wait_for(self._come.get(), self._patience_s)
        except TimeoutError:
            raise Silent(f"nothing within {self._patience_s:g} s after {heard.kinds(self.replies)}") from None
        if isinstance(come, Broken):
            raise come
        if come is None:
            raise Ended(f"the stream ended after {heard.kinds(self.replies)}")
        self.replies.append(come)
        if len(self.replies) > MOST_REPLIES:
            raise Broken(f"more than {MOST_REPLIES} replies")
        return come

    async def until(self, enough: Callable[[Replies], bool]) -> Replies:
        """Hear until the replies so far are enough."""
        while not enough(self.replies):
            await self.hear()
        return self.replies

    async def ended(self) -> Replies:
        """Say no more, and hear to the end. Raises Broken unless the stream ends with OK."""
        with contextlib.suppress(asyncio.InvalidStateError, grpc.RpcError):
            await self._call.done_writing()
        try:
            while True:
                await self.hear()
        except Ended:
            return self.replies
        except Silent:
            raise Broken(f"the stream is still open {self._patience_s:g} s after its gateway's end") from None

    async def abort(self) -> None:
        """Go away, as a gateway does whose client did."""
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                await self._come.put(ProcessingResponse.FromString(data))
            status, details = await self._call.code(), await self._call.details()
            fine = status is grpc.StatusCode.OK or details == WRITE_FAILED
            failed = None if fine else Broken(_error(status, details))
        except grpc.aio.AioRpcError as error:
            failed = None if error.details() == WRITE_FAILED else Broken(_error(error.code(), error.details()))
        except DecodeError:
            failed = Broken("a reply that is no ProcessingResponse")
        await self._come.put(failed)


def _error(status: grpc.StatusCode, details: str | None) -> str:
    return f"the stream ended with the gRPC error {status.name}: {(details or '')[:200]}"


@dataclass(frozen=True, slots=True)
class Epp:
    """An EPP under test. `endpoints` are those of its pool, `ip:port`; `model` one that it lets pass.

    `health` is its health port, `empty` an EPP of the same kind whose pool is empty, `door` a `host:port` for further
    connections without TLS, `address` where it does TLS: None or empty where the cases about them are not asked.
    `testing`: its two plugins for conformance tests are on.
    """

    channel: grpc.aio.Channel
    endpoints: tuple[str, ...] = ()
    model: str = "conformance"
    patience_s: float = 5.0
    health: grpc.aio.Channel | None = None
    empty: grpc.aio.Channel | None = None
    door: str = ""
    address: tuple[str, int] | None = None
    testing: bool = False

    @contextlib.asynccontextmanager
    async def stream(self, channel: grpc.aio.Channel | None = None) -> AsyncIterator[Stream]:
        """A new stream, aborted at the end if it still runs."""
        stream = Stream((channel or self.channel).stream_stream(EXT_PROC)(), self.patience_s)
        try:
            yield stream
        finally:
            await stream.abort()

    @contextlib.asynccontextmanager
    async def asked(
        self,
        pieces: Iterable[bytes] | None = None,
        *,
        trailers: bool = False,
        channel: grpc.aio.Channel | None = None,
        **headers: Any,
    ) -> AsyncIterator[Stream]:
        """A stream whose request was said and answered, in full duplex; `headers` are those of `request_headers`.

        `pieces` of the body come one message each; its end is an empty message or trailers, as with Envoy.
        """
        said = [messages.chat(self.model)] if pieces is None else list(pieces)
        last = messages.request_trailers() if trailers else messages.request_body(b"", end=True)
        async with self.stream(channel) as stream:
            await stream.say(messages.request_headers(**headers), *map(messages.request_body, said), last)
            part = "request_trailers" if trailers else "request_body"
            await stream.until(lambda replies: settled(replies, part))
            yield stream

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncIterator[Stream]:
        """A stream whose answer is about to begin. NotAsked of an EPP that leaves answers to the gateway: it ends the
        stream with OK in place of its first reply to one."""
        async with self.asked() as stream:
            asked = len(stream.replies)
            try:
                yield stream
            except Ended:
                if len(stream.replies) == asked:
                    raise NotAsked("the EPP ends the stream with the pick and sees no answer") from None
                raise

    async def ask(self, pieces: Iterable[bytes] | None = None, **asked: Any) -> Replies:
        """What the EPP says to a request with a body."""
        async with self.asked(pieces, **asked) as stream:
            return stream.replies

    async def ask_bodyless(self, channel: grpc.aio.Channel | None = None, **headers: Any) -> Replies:
        """What it says to a GET."""
        async with self.stream(channel) as stream:
            await stream.say(messages.request_headers(method="GET", path="/v1/models", end=True, **headers))
            return await stream.until(lambda replies: settled(replies, "request_headers"))

    async def refuses(self, status: int, channel: grpc.aio.Channel | None = None, **headers: Any) -> None:
        """It answers a request like this one by itself, with this status, and then ends the stream with OK.

        `method="GET"` is a request without a body.
        """
        bodyless = headers.get("method") == "GET"
        body = [] if bodyless else [messages.request_body(messages.chat(self.model), end=True)]
        async with self.stream(channel) as stream:
            await stream.say(messages.request_headers(end=bodyless, **headers), *body)
            await stream.until(lambda replies: settled(replies, "request_headers" if bodyless else "request_body"))
            no = heard.refusal(stream.replies)
            if no is None:
                raise Broken(f"sent to {heard.destination(stream.replies)} instead of answered with {status}")
            if no.status.code != status:
                raise Broken(f"answered with {no.status.code} instead of {status}")
            await stream.ended()

    def several(self) -> tuple[str, ...]:
        """At least two endpoints, or NotAsked."""
        if len(self.endpoints) < 2:
            raise NotAsked("the pool must have two endpoints")
        return self.endpoints


async def many(check: Callable[[T], Awaitable[None]], values: Iterable[T], at_once: int = 8) -> None:
    """Check every value, `at_once` of them at a time. Raises what the first that fails raises, and ends the others."""
    gate = asyncio.Semaphore(at_once)

    async def one(value: T) -> None:
        async with gate:
            await check(value)

    tasks = [asyncio.create_task(one(value)) for value in values]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def discover(epp: Epp, requests: int = 64) -> tuple[str, ...]:
    """The endpoints that an EPP names for so many different prompts. Raises Broken."""
    found: set[str] = set()
    for number in range(requests):
        found.update(heard.destinations(await epp.ask([messages.chat(epp.model, f"{number} is a number")])))
    return tuple(sorted(found))


def settled(replies: Replies, part: str = "request_body") -> bool:
    """The request was refused, or has its header reply and the end of the replies to `part`, in whatever order."""
    done = {heard.kind(reply) for reply in replies if _ends(reply)}
    return "immediate_response" in done or {"request_headers", part} <= done


def _ends(reply: ProcessingResponse) -> bool:
    body = reply.request_body.response.body_mutation
    return not body.HasField("streamed_response") or body.streamed_response.end_of_stream
