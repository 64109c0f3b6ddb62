"""The loop that keeps one collection mirrored: do what the reflector asks, hand it the answer."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
import structlog

from picker.pool.kube import wire
from picker.pool.kube.access import Resource
from picker.pool.kube.lines import MAX_LINE, Lines
from picker.pool.kube.objects import BadObject
from picker.pool.kube.reflector import Change, Failure, List, Reflector, Wait, Watch
from picker.server.kubernetes.cluster import Cluster

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_PAGE_BYTES = 256 * 1024 * 1024
GRACE_S = 30.0
"""A watch is given up so long after the time at which the server was to end it."""


@dataclass(slots=True)
class WatchCount:
    """How the watch of one collection went so far. `bad`: objects that were skipped."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    failures: int = 0
    bad: int = 0


class Mirror(Generic[T]):
    """One collection in one namespace, restricted by `selector` (query parameters). `run` keeps `reflector` true to it.

    `apply` gets the changes, in order, and is called without any, too. `answered_at` is when the server last said
    anything, by `clock`.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        namespace: str,
        reflector: Reflector[T],
        apply: Callable[[list[Change[T]]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource, self.reflector, self.count = resource, reflector, WatchCount()
        self.selector: Mapping[str, str] = {}
        self.answered_at = clock()
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self._apply = apply
        self._told = ""

    async def run(self) -> None:
        """Mirror until cancelled. No answer of the server ends it."""
        while True:
            asked = self.reflector.ask()
            if isinstance(asked, Wait):
                await asyncio.sleep(asked.seconds)
                continue
            try:
                await (self._list(asked) if isinstance(asked, List) else self._watch(asked))
            except Exception as error:
                self._failed("list" if isinstance(asked, List) else "watch", _failure(error))
            self.settle()

    def settle(self) -> None:
        """Hand on what changed, and say what is wrong, once."""
        changes = self.reflector.changes()
        for change in changes:
            if change.problem:
                self.count.bad += 1
                log.warning("object skipped", kind=str(self.resource), name=change.name, reason=change.problem)
        self._apply(changes)

    async def _list(self, asked: List) -> None:
        self.count.lists += 1
        query = {"limit": str(asked.limit)} if asked.limit is not None else {}
        if asked.proceed:
            query["continue"] = asked.proceed
        async with self._cluster.request("GET", self._path, {**self.selector, **query}) as answer:
            if await self._refused("list", answer):
                return
            body = await _read(answer, MAX_PAGE_BYTES)
        self.answered_at = self._clock()
        for _ in self.reflector.page(body):
            await asyncio.sleep(0)
        self._well()

    async def _watch(self, asked: Watch) -> None:
        self.count.watches += 1
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": asked.resource_version,
            "timeoutSeconds": str(asked.timeout_s),
        }
        began, lines = self._clock(), Lines(MAX_LINE)
        async with self._cluster.request(
            "GET", self._path, {**self.selector, **query}, timeout_s=asked.timeout_s + GRACE_S
        ) as answer:
            if await self._refused("watch", answer):
                return
            broken: Failure | None = None
            try:
                async for chunk in answer.content.iter_any():
                    if not self._heard(lines.feed(chunk)):
                        return
            except Exception as error:
                broken = _failure(error)
                self.count.failures += 1
        self.reflector.ended(self._clock() - began, broken)
        self._tell("watch")

    def _heard(self, events: list[bytes]) -> bool:
        """Take some lines of a watch; whether there is more to come."""
        self.answered_at = self._clock()
        for line in events:
            self.count.events += 1
            if not self.reflector.line(line):
                self._tell("watch")
                return False
        self._well()
        self.settle()
        return True

    @property
    def _path(self) -> str:
        return self.resource.path(self._namespace)

    async def _refused(self, verb: str, answer: aiohttp.ClientResponse) -> bool:
        self.answered_at = self._clock()
        if answer.status == 200:
            return False
        reason = _message(await _read(answer, 65_536))
        self._failed(verb, Failure(answer.status, reason, _seconds(answer)))
        return True

    def _failed(self, verb: str, failure: Failure) -> None:
        self.count.failures += 1
        self.reflector.failed(failure)
        self._tell(verb)

    def _tell(self, verb: str) -> None:
        """Say what is wrong, unless it was just said."""
        trouble = self.reflector.trouble
        if trouble and trouble != self._told:
            say = log.warning if self.resource.needed else log.info
            kind, needed = str(self.resource), self.resource.needed
            say("cannot " + verb, verb=verb, kind=kind, namespace=self._namespace, needed=needed, reason=trouble)
        self._told = trouble or self._told

    def _well(self) -> None:
        if self._told and not self.reflector.trouble:
            log.info("works again", kind=str(self.resource), namespace=self._namespace)
            self._told = ""


def _failure(error: Exception) -> Failure:
    """Whatever goes wrong on the way to the server is a failure of this one request."""
    return Failure(None, "timed out" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"[:300])


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body. Raises ValueError when it is over the limit."""
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
    return bytes(body)


def _message(body: bytes) -> str:
    """What a refusal says: the message of a Status object, or else all of it."""
    try:
        message = wire.status(body).message
    except BadObject:
        message = None
    text = message if isinstance(message, str) and message else body.decode("utf-8", "replace")
    return " ".join(text.split())[:300]


def _seconds(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
