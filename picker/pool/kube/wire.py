"""The envelopes in which an API server sends objects: pages of lists, events of watches. What is inside stays raw."""

from typing import Any, TypeVar

import msgspec

from picker.pool.kube.objects import BadObject

T = TypeVar("T")


class Named(msgspec.Struct):
    """Whose word it is, and in which version."""

    name: str
    uid: str = ""
    resourceVersion: str = ""


class ListMeta(msgspec.Struct):
    """As of which version; `proceed` is the token of the next page."""

    resourceVersion: str = ""
    proceed: str | None = msgspec.field(default=None, name="continue")


class Page(msgspec.Struct):
    """One page of a list."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct):
    """One line of a watch. `type` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct):
    """The object of an ERROR."""

    code: Any = None
    message: Any = ""


class _Object(msgspec.Struct):
    metadata: Named


class _Bookmark(msgspec.Struct):
    metadata: ListMeta


_PAGE, _EVENT = msgspec.json.Decoder(Page), msgspec.json.Decoder(Event)
_STATUS, _BOOKMARK = msgspec.json.Decoder(Status), msgspec.json.Decoder(_Bookmark)
_OBJECT = msgspec.json.Decoder(_Object)


def page(body: bytes) -> Page:
    """The answer to a list. Raises BadObject."""
    found = _decoded(_PAGE, body)
    if not found.metadata.resourceVersion:
        raise BadObject("metadata.resourceVersion: there is none")
    return found


def event(line: bytes) -> Event:
    """A line of a watch. Raises BadObject."""
    return _decoded(_EVENT, line)


def status(raw: bytes | msgspec.Raw) -> Status:
    """The object of an ERROR event. Raises BadObject."""
    return _decoded(_STATUS, raw)


def named(raw: bytes | msgspec.Raw) -> Named:
    """Whose word an object is. Raises BadObject for one without a name."""
    return _decoded(_OBJECT, raw).metadata


def bookmark(raw: bytes | msgspec.Raw) -> str:
    """The version that a BOOKMARK tells; empty if it tells none. Raises BadObject."""
    return _decoded(_BOOKMARK, raw).metadata.resourceVersion


def _decoded(decoder: "msgspec.json.Decoder[T]", raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadObject(" ".join(str(error).split())[:200]) from None
