"""Header blocks that we receive: decoded by `hpack`, judged, and remembered.

We announce a table of size 0. Once the peer keeps to it, equal blocks mean equal headers, and a block seen before costs
one look-up. Of a gateway that sends the same few headers with each call, nearly all blocks are such.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

from picker.wire.answers import INTERNAL, RESOURCE_EXHAUSTED
from picker.wire.frames import Broken, Code

_REMEMBERED: Final = 256
_REMEMBERED_BYTES: Final = 4096
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?![ \t])[^\0\r\n]*(?<![ \t])")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_THREE_UPDATES: Final = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\0-\x7f]){3}")
"""A block may begin with two changes of the table's size (RFC 7541 section 4.2). More are work without end."""
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_HOP_BY_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_OURS: Final = frozenset(
    {b"te", b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding"}
)
"""What this room itself acts upon; it is no metadata."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a well-formed request is not served: an HTTP status, or, where that is 200, a gRPC status and its message."""

    http: int = 200
    status: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """One request's headers. `timeout`: seconds, infinite without one. `length`: content-length, -1 without one.

    `packed`: the peer may compress messages. `malformed`: which rule of RFC 9113 section 8 it breaks, empty for none.
    """

    path: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float = math.inf
    packed: bool = False
    length: int = -1
    malformed: str = ""
    refusal: Refusal | None = None


_TOO_LARGE: Final = Head(refusal=Refusal(status=RESOURCE_EXHAUSTED, message="the header list is too large"))


class HeaderBlocks:
    """Of one connection: `hpack`'s table, and the blocks that were read before."""

    def __init__(self, header_bytes: int) -> None:
        self._limit = header_bytes
        self._decoder = Decoder(max_header_list_size=header_bytes)
        self._known: dict[bytes, Head] = {}
        self._stateless = False

    def settled(self) -> None:
        """The peer has acknowledged our SETTINGS: its next block has to begin by emptying the table."""
        self._decoder.max_allowed_table_size = 0

    def request(self, block: bytes) -> Head:
        """What a block that opens a stream says. Raises `Broken` where the table's state is lost."""
        known = self._known.get(block)
        if known is not None and self._stateless:
            return known
        fields = self._decoded(block)
        if fields is None:
            return _TOO_LARGE
        head = judged(fields)
        if self._stateless and len(block) <= _REMEMBERED_BYTES:
            if len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[block] = head
        return head

    def trailers(self, block: bytes) -> bool:
        """Whether a block after the messages is well-formed; nothing else in it matters. Raises `Broken`."""
        fields = self._decoded(block)
        return fields is not None and not any(_field_fault(name, value) for name, value in fields)

    def _decoded(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        """None for a list that is too large, where leaving it unread does no harm to later ones."""
        if _THREE_UPDATES.match(block):
            raise Broken(Code.COMPRESSION_ERROR, "header block changes the table over and over")
        try:
            if len(block) > self._limit:
                raise OversizedHeaderListError
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            if self._stateless and not self._decoder.header_table_size:
                return None
            raise Broken(Code.ENHANCE_YOUR_CALM, "header list too large") from None
        except HPACKError as error:
            raise Broken(Code.COMPRESSION_ERROR, f"header block unreadable: {type(error).__name__}") from None
        finally:
            self._stateless = not self._decoder.header_table_size


def judged(fields: Iterable[tuple[bytes, bytes]]) -> Head:
    """A request's fields, in order, by RFC 9113 section 8 and gRPC's Request-Headers. Never raises.

    >>> judged([(b":method", b"POST"), (b":path", b"/a/B")]).malformed
    'no :scheme'
    """
    pseudo: dict[bytes, bytes] = {}
    ours: dict[bytes, bytes] = {}
    metadata: list[tuple[str, str]] = []
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in pseudo:
                return Head(malformed="a pseudo-header unknown, repeated or late")
            if not _VALUE.fullmatch(value):
                return Head(malformed="forbidden bytes in a value")
            pseudo[name] = value
            continue
        regular = True
        if fault := _field_fault(name, value):
            return Head(malformed=fault)
        if name not in _OURS:
            metadata.append((name.decode("latin-1"), value.decode("latin-1")))
        elif ours.setdefault(name, value) != value and name == b"content-length":
            return Head(malformed="two content-lengths")
    return _weighed(pseudo, ours, tuple(metadata))


def _field_fault(name: bytes, value: bytes) -> str:
    """Which rule of section 8.2 a regular field breaks, empty for none."""
    if not _NAME.fullmatch(name):
        return "forbidden bytes in a name"
    if not _VALUE.fullmatch(value):
        return "forbidden bytes in a value"
    if name in _HOP_BY_HOP or (name == b"te" and value != b"trailers"):
        return "a header about one connection"
    return ""


def _weighed(pseudo: dict[bytes, bytes], ours: dict[bytes, bytes], metadata: tuple[tuple[str, str], ...]) -> Head:
    method = pseudo.get(b":method")
    if method == b"CONNECT":
        return Head(refusal=Refusal(http=405))
    for name in (b":method", b":scheme", b":path"):
        if not pseudo.get(name):
            return Head(malformed=f"no {name.decode()}")
    length = ours.get(b"content-length")
    if length is not None and not _LENGTH.fullmatch(length):
        return Head(malformed="content-length is no number")
    timeout = ours.get(b"grpc-timeout")
    spoken = None if timeout is None else _TIMEOUT.fullmatch(timeout)
    refusal = None
    if method != b"POST":
        refusal = Refusal(http=405)
    elif not _is_grpc(ours.get(b"content-type", b"")):
        refusal = Refusal(http=415)
    elif timeout is not None and spoken is None:
        refusal = Refusal(status=INTERNAL, message="malformed grpc-timeout")
    return Head(
        path=pseudo[b":path"].decode("latin-1"),
        metadata=metadata,
        timeout=int(spoken[1]) * _SECONDS[spoken[2]] if spoken else math.inf,
        packed=ours.get(b"grpc-encoding", b"identity") != b"identity",
        length=-1 if length is None else int(length),
        refusal=refusal,
    )


def _is_grpc(content_type: bytes) -> bool:
    """`application/grpc`, with or without `+proto` or a parameter; not `application/grpc-web`."""
    kind = content_type.lower()
    return kind[:16] == b"application/grpc" and kind[16:17] in (b"", b"+", b";", b" ")
