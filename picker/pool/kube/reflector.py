"""One collection of the API, mirrored: list, then watch from there, and list again when the server has forgotten.

    LIST --last page--> WATCH --event, bookmark--> WATCH   the next watch starts after the last event seen
    WATCH --stream ends--> WATCH                           at once, or after a pause if it was a short one
    WATCH, LIST --410 Gone--> LIST                         what differs from the mirror is applied at the end
    any --404, thrice--> empty mirror, later LIST          the kind does not exist (yet, or any more)
    any --other failure--> WAIT, then as before            the mirror stays as it is
    WATCH --third refusal in a row--> LIST                 perhaps it is this place that cannot be served

Sans-I/O: `ask` says what to do next; feed the answer back; `changes` gives what is new in the mirror. A mirror changes
with each event and once per list, never with half a list. Lists are read in pages, at the most recent state: a mirror
does not go back in time. Resource versions are compared for equality alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from picker.pool.kube import wire
from picker.pool.kube.objects import BadObject

T = TypeVar("T")

PAGE = 250
SLICE = 50
"""Objects of a page that are read in one go."""
WATCH_S = (180.0, 360.0)
"""A watch ends after a time drawn from here, so that pickers that started together do not come back together."""
PAUSE_S = (0.5, 30.0)
"""The first pause after a failure, and the longest; each is twice the one before, less up to half of it by chance."""
ABSENT_S = 60.0
"""Pause before a kind that does not exist, or may not be seen, is asked for again."""
SHORT_WATCH_S = 5.0
REFUSALS = 3
MAX_OBJECTS = 20_000
"""Of one collection; further ones are left out, and said to be."""
GONE, NOT_FOUND, FORBIDDEN, UNREADABLE = 410, 404, 403, 200


@dataclass(frozen=True, slots=True)
class List:
    """GET the collection: a page of `limit` (None for all at once), from the token `proceed` on."""

    limit: int | None
    proceed: str = ""


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch the collection, with bookmarks, for at most `timeout_s`."""

    resource_version: str
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """An answer that is none: its HTTP status, or None for no answer at all; `retry_after_s` as the server asked."""

    status: int | None
    reason: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """An object is now `value`; None where it is gone, or cannot be used for the reason `problem`."""

    name: str
    value: T | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    version: str
    value: T | None
    problem: str


class Reflector(Generic[T]):
    """Mirrors one collection. `read` turns an object's bytes into what is kept, or raises BadObject.

    One that is not `needed` and that the server refuses counts as empty. `draw` gives numbers in [0, 1).
    """

    def __init__(self, read: Callable[[bytes], T], draw: Callable[[], float], *, needed: bool = True) -> None:
        self.synced = False
        """Listed whole at least once, or known to be out of reach."""
        self.trouble = ""
        """What is wrong now; empty if nothing is."""
        self._read, self._draw, self._needed = read, draw, needed
        self._held: dict[str, _Held[T]] = {}
        self._listed: dict[str, _Held[T]] = {}
        self._changes: list[Change[T]] = []
        self._version: str | None = None
        self._paging: tuple[str, str] | None = None
        self._paged = True
        self._pause_s = 0.0
        self._failures = 0
        self._full = False

    def ask(self) -> List | Watch | Wait:
        """What to do next. A pause is asked for once."""
        if self._pause_s:
            pause, self._pause_s = self._pause_s, 0.0
            return Wait(pause)
        if self._version is not None:
            return Watch(self._version, int(WATCH_S[0] + self._draw() * (WATCH_S[1] - WATCH_S[0])))
        proceed = "" if self._paging is None else self._paging[1]
        return List(PAGE if self._paged else None, proceed)

    def changes(self) -> list[Change[T]]:
        """What is new since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def page(self, body: bytes) -> Iterator[None]:
        """Take the answer to a List; pauses between slices of objects, for others to have a turn."""
        try:
            page = wire.page(body)
        except BadObject as error:
            self.failed(Failure(UNREADABLE, f"a list that cannot be read: {error}"))
            return
        if self._paging is None:
            self._listed = {}
        # Of a list in pages the first one's version counts: from there on no event is missed, whatever the others say.
        version = page.metadata.resourceVersion if self._paging is None else self._paging[0]
        for number, raw in enumerate(page.items or ()):
            if number % SLICE == SLICE - 1:
                yield
            self._list(bytes(raw))
        if page.metadata.proceed:
            self._paging = (version, page.metadata.proceed)
        else:
            self._adopt(version)
        self.trouble = ""

    def line(self, line: bytes) -> bool:
        """Take one line of a Watch. False: the stream has nothing more to say, ask anew."""
        try:
            event = wire.event(line)
            if event.type == "ERROR":
                self._refused(wire.status(event.object))
                return False
            if event.type == "BOOKMARK":
                version = wire.bookmark(event.object)
            else:
                version = self._happened(event, wire.named(event.object))
        except BadObject as error:
            self.failed(Failure(UNREADABLE, f"an event that cannot be read: {error}"))
            return False
        self._version = version or self._version
        self._well()
        return True

    def ended(self, lived_s: float, failure: Failure | None = None) -> None:
        """The stream of a Watch ended after so many seconds: as it should, or broken off by a failure."""
        if lived_s >= SHORT_WATCH_S:
            self._well()
        if failure is not None:
            self.failed(failure)
        elif lived_s < SHORT_WATCH_S:
            self._back_off(0.0)

    def failed(self, failure: Failure) -> None:
        """A List or a Watch failed."""
        if failure.status == GONE:
            self._forget_place()
            return
        self.trouble = failure.reason if failure.status is None else f"{failure.status}: {failure.reason}"
        if failure.status == NOT_FOUND and self._held and self._failures + 1 < REFUSALS:
            # An API server that is just starting may not know a kind yet.
            self._version, self._paging = None, None
            self._back_off(0.0)
        elif failure.status == NOT_FOUND:
            self._forget_place()
            self._listed = {}
            self._replace()
            self.synced = True
            self._pause_s = ABSENT_S * (0.5 + self._draw())
        elif failure.status == FORBIDDEN and not self._needed:
            self.synced = True
            self._pause_s = ABSENT_S * (0.5 + self._draw())
        else:
            self._back_off(failure.retry_after_s)
            if failure.status is not None:
                self.synced |= not self._needed
                if self._failures >= REFUSALS:
                    self._version = None

    def relist(self) -> None:
        """Another question is asked from now on, say with other labels: list anew, and apply what differs."""
        self._version, self._paging, self._paged, self._pause_s = None, None, True, 0.0

    def forget(self) -> None:
        """Empty the mirror, and list anew."""
        self._listed = {}
        self._replace()
        self.relist()

    def _happened(self, event: wire.Event, meta: wire.Named) -> str:
        """Apply an event; the version as of it."""
        if event.type in ("ADDED", "MODIFIED"):
            self._keep(meta.name, self._understood(meta, bytes(event.object)))
        elif event.type == "DELETED":
            self._drop(meta.name)
        return meta.resourceVersion

    def _refused(self, status: wire.Status) -> None:
        code = status.code if isinstance(status.code, int) else None
        self.failed(Failure(code, str(status.message)[:200]))

    def _forget_place(self) -> None:
        """List anew; where the server forgot in the middle of a list, all at once: the pages came too slowly."""
        if self._version is None and self._paging is not None:
            self._paged = False
        self._version, self._paging = None, None
        # Once is no failure, but a server that says nothing else must not be asked without a pause.
        if self._failures:
            self._back_off(0.0)
        self._failures = max(1, self._failures)

    def _back_off(self, at_least_s: float) -> None:
        longest = min(PAUSE_S[1], PAUSE_S[0] * 2.0 ** min(self._failures, 16))
        self._pause_s = max(min(at_least_s, 10 * PAUSE_S[1]), longest * (1 - self._draw() / 2))
        self._failures += 1

    def _well(self) -> None:
        self._failures = 0
        self.trouble = ""

    def _list(self, raw: bytes) -> None:
        try:
            meta = wire.named(raw)
        except BadObject as error:
            # Without a name it cannot even be said which one it is.
            self._listed.setdefault("", _Held("", None, f"an object without a name: {error}"))
            return
        if len(self._listed) >= MAX_OBJECTS and meta.name not in self._listed:
            self._say_full()
            return
        self._listed[meta.name] = self._understood(meta, raw)

    def _understood(self, meta: wire.Named, raw: bytes) -> _Held[T]:
        held = self._held.get(meta.name)
        version = f"{meta.uid}@{meta.resourceVersion}"
        if held is not None and held.version == version:
            return held
        try:
            return _Held(version, self._read(raw), "")
        except BadObject as error:
            return _Held(version, None, str(error))

    def _adopt(self, version: str) -> None:
        self._replace()
        self._version, self._paging, self._paged = version, None, True
        self.synced = True

    def _replace(self) -> None:
        listed, self._listed = self._listed, {}
        for name in [name for name in self._held if name not in listed]:
            self._drop(name)
        for name, held in listed.items():
            self._keep(name, held)

    def _keep(self, name: str, new: _Held[T]) -> None:
        old = self._held.get(name)
        if old is None and len(self._held) >= MAX_OBJECTS:
            self._say_full()
            return
        self._held[name] = new
        if old is None or (old.value, old.problem) != (new.value, new.problem):
            self._changes.append(Change(name, new.value, new.problem))

    def _say_full(self) -> None:
        if not self._full:
            self._full = True
            self._changes.append(Change("", None, f"more than {MAX_OBJECTS} objects: the rest is left out"))

    def _drop(self, name: str) -> None:
        if self._held.pop(name, None) is not None:
            self._changes.append(Change(name, None))
