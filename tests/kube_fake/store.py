"""Versioned objects and their history: the part of an API server that etcd and the watch cache are."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from .errors import expired, too_large_version
from .selectors import Selector

Obj = Mapping[str, Any]
"""A stored object; never changed once it is stored."""
Key = tuple[str, str]
"""(namespace, name); namespace empty for what is in none."""
Of = tuple[str, str]
"""(group, plural)."""

PAGES_KEPT = 100


@dataclass(frozen=True)
class Event:
    """One write. `before` is None of an ADDED object."""

    version: int
    kind: str
    obj: Obj
    before: Obj | None

    def seen_through(self, selector: Selector) -> tuple[str, Obj] | None:
        """What a watch is told: an object that leaves the selection is DELETED, one that enters it ADDED."""
        was = self.before is not None and selector(self.before)
        if self.kind == "DELETED":
            return ("DELETED", self.obj) if was else None
        if selector(self.obj):
            return ("MODIFIED" if was else "ADDED"), self.obj
        if not was or self.before is None:
            return None
        meta = {**self.before["metadata"], "resourceVersion": str(self.version)}
        return "DELETED", {**self.before, "metadata": meta}


@dataclass(frozen=True)
class Page:
    """Part of a list. `token` asks for the rest; empty at the end."""

    objects: list[Obj]
    version: int
    token: str = ""
    remaining: int = 0


@dataclass
class Store:
    """All objects by resource. `version` counts writes; `history` is how many of a resource a watch can go back."""

    history: int = 10_000
    version: int = 1000
    listeners: set[Callable[[], None]] = field(default_factory=set)
    _objects: dict[Of, dict[Key, Obj]] = field(default_factory=dict)
    _log: dict[Of, deque[Event]] = field(default_factory=dict)
    _floor: dict[Of, int] = field(default_factory=dict)
    _compacted: int = 0
    _pages: dict[str, tuple[int, list[Obj]]] = field(default_factory=dict)

    def get(self, of: Of, key: Key) -> Obj | None:
        return self._objects.get(of, {}).get(key)

    def all(self, of: Of, namespace: str = "") -> Iterator[Obj]:
        for (where, _), obj in sorted(self._objects.get(of, {}).items()):
            if namespace in ("", where):
                yield obj

    def write(self, of: Of, key: Key, obj: Obj | None) -> Obj:
        """Store an object, or with None delete it; returns it with its new resourceVersion."""
        self.version += 1
        objects = self._objects.setdefault(of, {})
        before = objects.get(key)
        kind = "DELETED" if obj is None else "ADDED" if before is None else "MODIFIED"
        written = obj if obj is not None else before
        assert written is not None, "there is nothing to delete"
        written = {**written, "metadata": {**written["metadata"], "resourceVersion": str(self.version)}}
        if obj is None:
            del objects[key]
        else:
            objects[key] = written
        log = self._log.setdefault(of, deque(maxlen=self.history))
        if len(log) == self.history:
            self._floor[of] = log[0].version
        log.append(Event(self.version, kind, written, before))
        for listener in list(self.listeners):
            listener()
        return written

    def compact(self) -> None:
        """Forget all history and open pages: watches from older versions, and continued lists, get 410."""
        self._compacted = self.version
        self._log.clear()
        self._pages.clear()

    def since(self, of: Of, version: int) -> list[Event]:
        """Writes after a version. Raises ApiError 410 where history does not reach so far back, 504 for the future."""
        if version > self.version:
            raise too_large_version(version, self.version)
        oldest = max(self._compacted, self._floor.get(of, 0))
        if version < oldest:
            raise expired(f"too old resource version: {version} ({oldest})")
        log = self._log.get(of, ())
        newer = list(takewhile(lambda event: event.version > version, reversed(log)))
        return newer[::-1]

    def page(self, of: Of, namespace: str, selector: Selector, limit: int) -> Page:
        """A list, or its first page."""
        return self._cut(self.version, [obj for obj in self.all(of, namespace) if selector(obj)], limit)

    def next_page(self, token: str, limit: int) -> Page:
        """The rest of a list as it was when its first page was asked for. Raises ApiError 410."""
        if token not in self._pages:
            raise expired("The provided continue parameter is too old to display a consistent list result.")
        version, objects = self._pages[token]
        return self._cut(version, objects, limit)

    def _cut(self, version: int, objects: list[Obj], limit: int) -> Page:
        if not limit or len(objects) <= limit:
            return Page(objects, version)
        token = f"page-{version}-{len(objects) - limit}-{id(objects)}"
        self._pages[token] = version, objects[limit:]
        while len(self._pages) > PAGES_KEPT:
            del self._pages[next(iter(self._pages))]
        return Page(objects[:limit], version, token, len(objects) - limit)
