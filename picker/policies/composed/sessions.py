"""Session affinity: a session goes where it went before, as a wish (scorer) or as a rule (filter).

A session is known by the token that an answer gave its client, or by an id of the client's own that is remembered here.
What has not been used for its time to live is no longer believed, and gives way when there are too many.
"""

import base64
import binascii
from collections import OrderedDict
from typing import Annotated, Literal

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.policies.composed.look import Look, Mask, Members

MAX_SESSIONS = 100_000
"""Sessions remembered; the longest unused give way."""

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


IdHeader = Literal["x-session-id", "x-claude-code-session-id", "x-session-affinity", "session-id", "x-session-token"]
"""The headers that a session's id is read from, the first one present, whichever of them a file names."""


class SessionScorer(msgspec.Struct, frozen=True, rename="camel"):
    algorithm: Literal["encoded_endpoint_header", "session_id_header"] = "encoded_endpoint_header"
    header_name: IdHeader = "x-session-token"
    eviction_ttl_seconds: Seconds = 600.0

    def __post_init__(self) -> None:
        if self.algorithm == "encoded_endpoint_header" and self.header_name != "x-session-token":
            raise ValueError("a token is read from x-session-token only")


class TokenHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: Literal["x-session-token"] = "x-session-token"


class IdSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: IdHeader


class SessionId(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    sources: Annotated[tuple[IdSource, ...], msgspec.Meta(max_length=8)] = ()
    eviction_ttl_seconds: Seconds = 300.0
    eviction_sweep_seconds: Seconds = 10.0


class SessionFilter(msgspec.Struct, frozen=True, rename="camel"):
    strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header"
    encoded_endpoint_header_config: TokenHeader = TokenHeader()
    session_id_config: SessionId = SessionId()


class Pins:
    """Where sessions are. Ids are bound to addresses, since a slot may pass to another endpoint."""

    def __init__(self, ids: bool, ttl_s: float) -> None:
        self._ids = ids
        self._ttl_s = ttl_s
        self._bound: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def slot(self, look: Look) -> int:
        """The slot of the request's session, -1 where it has none or its endpoint is gone."""
        hints = look.request.hints
        if not self._ids:
            return endpoint_of(hints.session_token, look.members)
        address, used = self._bound.get(hints.session, ("", 0.0))
        return look.members.by_name.get(address, -1) if look.now - used <= self._ttl_s else -1

    def picked(self, look: Look, row: int) -> None:
        session, member = look.request.hints.session, look.members.by_slot.get(int(look.rows.slots[row]))
        if not self._ids or not session or member is None:
            return
        self._bound[session] = (member.address, look.now)
        self._bound.move_to_end(session)
        if len(self._bound) > MAX_SESSIONS:
            self._bound.popitem(last=False)


class SessionWish(Pins):
    """session-affinity-scorer: 1 for the session's endpoint, 0 for the others."""

    def __init__(self, params: SessionScorer) -> None:
        super().__init__(params.algorithm == "session_id_header", params.eviction_ttl_seconds)

    def __call__(self, look: Look) -> Column:
        wish: Column = (look.rows.slots == self.slot(look)).astype(np.float64)
        return wish


class SessionRule(Pins):
    """session-affinity-filter: the session's endpoint alone, while it is a candidate."""

    def __init__(self, params: SessionFilter) -> None:
        super().__init__(params.strategy == "session_id", params.session_id_config.eviction_ttl_seconds)

    def __call__(self, look: Look) -> Mask:
        own = look.rows.slots == self.slot(look)
        return own if own.any() else np.ones(len(own), dtype=np.bool_)


def token_for(address: str) -> str:
    """The token that brings a session back to this endpoint."""
    return base64.b64encode(address.encode()).decode()


def token_header(address: str) -> tuple[str, str]:
    """The header of an answer by which its client learns the token."""
    return "x-session-token", token_for(address)


def endpoint_of(token: str, members: Members) -> int:
    """Slot of the endpoint that a token names, by address or as `namespace/name`; -1 for any other text.

    >>> endpoint_of(token_for("10.0.0.1:8000"), Members(by_name={"10.0.0.1:8000": 3}))
    3
    """
    try:
        text = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, ValueError):
        return -1
    return members.by_name.get(text, members.by_name.get(text.rpartition("/")[2], -1))
