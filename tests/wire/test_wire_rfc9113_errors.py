"""RFC 9113, section by section: what a client must not send, what it costs, and what is borne.

Each case follows a greeting in order.
"""

import pytest
from wire_peer import REQUEST, Peer, block, data, grpc, raw, request, reset, settings, window_update

from picker.wire.events import MessageReceived, StreamEnded, StreamOpened
from picker.wire.frames import ACK, END_HEADERS, END_STREAM, PADDED, PRIORITY, Code, Kind, Setting, frame

PROTOCOL = Code.PROTOCOL_ERROR
FLOW_CONTROL = Code.FLOW_CONTROL_ERROR
FRAME_SIZE = Code.FRAME_SIZE_ERROR
COMPRESSION = Code.COMPRESSION_ERROR
STREAM_CLOSED = Code.STREAM_CLOSED
PING = frame(Kind.PING, 0, 0, b"12345678")
OPEN = request(1)
DONE = request(1, end=True)
HALF = request(1) + frame(Kind.HEADERS, 0, 3, block()[:10])


def fields(**changed: str | None) -> list[tuple[str, str]]:
    """The usual request, with pseudo-headers replaced or left out."""
    return [(name, new or "") for name, old in REQUEST if (new := changed.get(name.lstrip(":"), old)) is not None]


CONNECTION_ERRORS = {
    "4.2 a frame longer than SETTINGS_MAX_FRAME_SIZE": (raw(0, 0, 1, b"x" * 16_385), FRAME_SIZE),
    "4.2 its header alone suffices": (raw(0, 0, 1, b"x" * 16_385)[:9], FRAME_SIZE),
    "4.2 a long frame of an unknown kind": (raw(99, 0, 0, b"x" * 16_385), FRAME_SIZE),
    "4.3 a header block that cannot be read": (
        frame(Kind.HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        COMPRESSION,
    ),
    "4.3 a header block cut off": (frame(Kind.HEADERS, END_HEADERS, 1, b"\x00\x7f"), COMPRESSION),
    "4.3 an index that is not in the table": (frame(Kind.HEADERS, END_HEADERS, 1, b"\xc0"), COMPRESSION),
    "4.3.1 no table size update after the table was reduced": (
        frame(Kind.HEADERS, END_HEADERS, 1, b"\x83\x86\x84"),
        COMPRESSION,
    ),
    "4.3.1 a table larger than announced": (frame(Kind.HEADERS, END_HEADERS, 1, b"\x3f\xe1\x1f"), COMPRESSION),
    "4.3 trailers that cannot be read": (OPEN + frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"\xc0"), COMPRESSION),
    "5.1 DATA on an idle stream": (data(1, b""), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (reset(1), PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (window_update(1, 1), PROTOCOL),
    "5.1 WINDOW_UPDATE on a stream only a server opens": (OPEN + window_update(2, 1), PROTOCOL),
    "5.1 HEADERS on a stream that the client has reset": (OPEN + reset(1) + request(1), STREAM_CLOSED),
    "5.1.1 a stream with an even number": (request(2), PROTOCOL),
    "5.1.1 a stream number below an earlier one": (request(5) + request(3), PROTOCOL),
    "6.1 DATA on stream 0": (data(0, b""), PROTOCOL),
    "6.1 DATA with more padding than payload": (OPEN + frame(Kind.DATA, PADDED, 1, b"\x05abcd"), PROTOCOL),
    "6.1 DATA with padding and no length of it": (OPEN + frame(Kind.DATA, PADDED, 1), PROTOCOL),
    "6.2 HEADERS on stream 0": (request(0), PROTOCOL),
    "6.2 HEADERS with more padding than payload": (frame(Kind.HEADERS, PADDED | END_HEADERS, 1, b"\x05abcd"), PROTOCOL),
    "6.2 HEADERS too short for their priority": (frame(Kind.HEADERS, PRIORITY | END_HEADERS, 1, b"abcd"), FRAME_SIZE),
    "6.2 another frame within a header block": (HALF + PING, PROTOCOL),
    "6.2 DATA of another stream within a header block": (HALF + data(1, b"abc"), PROTOCOL),
    "6.2 an unknown kind within a header block": (HALF + raw(99, 0, 3), PROTOCOL),
    "6.2 HEADERS of another stream within a header block": (HALF + request(5), PROTOCOL),
    "6.3 PRIORITY on stream 0": (raw(2, 0, 0, b"\0\0\0\0\0"), PROTOCOL),
    "6.3 PRIORITY not of five bytes": (raw(2, 0, 1, b"\0\0\0\0"), FRAME_SIZE),
    "6.4 RST_STREAM on stream 0": (reset(0), PROTOCOL),
    "6.4 RST_STREAM not of four bytes": (OPEN + raw(3, 0, 1, b"\0\0\0"), FRAME_SIZE),
    "6.5 SETTINGS on a stream": (raw(4, 0, 1), PROTOCOL),
    "6.5 SETTINGS not in entries": (raw(4, 0, 0, b"\0\0\0\0\0"), FRAME_SIZE),
    "6.5 an acknowledgement with content": (raw(4, ACK, 0, b"\0" * 6), FRAME_SIZE),
    "6.5.2 ENABLE_PUSH neither 0 nor 1": (settings((Setting.ENABLE_PUSH, 2)), PROTOCOL),
    "6.5.2 INITIAL_WINDOW_SIZE too large": (settings((Setting.INITIAL_WINDOW_SIZE, 2**31)), FLOW_CONTROL),
    "6.5.2 MAX_FRAME_SIZE too small": (settings((Setting.MAX_FRAME_SIZE, 16_383)), PROTOCOL),
    "6.5.2 MAX_FRAME_SIZE too large": (settings((Setting.MAX_FRAME_SIZE, 2**24)), PROTOCOL),
    "6.6 PUSH_PROMISE from a client": (OPEN + raw(5, END_HEADERS, 1, b"\0\0\0\2"), PROTOCOL),
    "6.7 PING on a stream": (raw(6, 0, 1, b"12345678"), PROTOCOL),
    "6.7 PING not of eight bytes": (raw(6, 0, 0, b"1234567"), FRAME_SIZE),
    "6.8 GOAWAY on a stream": (raw(7, 0, 1, b"\0" * 8), PROTOCOL),
    "6.8 GOAWAY shorter than eight bytes": (raw(7, 0, 0, b"\0" * 7), FRAME_SIZE),
    "6.9 WINDOW_UPDATE not of four bytes": (raw(8, 0, 0, b"\0\0\1"), FRAME_SIZE),
    "6.9 WINDOW_UPDATE of the connection by nothing": (window_update(0, 0), PROTOCOL),
    "6.9.1 a connection window above 2^31-1": (window_update(0, 2**31 - 1), FLOW_CONTROL),
    "6.9.2 a stream's window made to overflow by SETTINGS": (
        OPEN + window_update(1, 2**31 - 1 - 65_535) + settings((Setting.INITIAL_WINDOW_SIZE, 65_536)),
        FLOW_CONTROL,
    ),
    "6.10 CONTINUATION without HEADERS": (raw(9, END_HEADERS, 1, block()), PROTOCOL),
    "6.10 CONTINUATION of another stream": (HALF + raw(9, END_HEADERS, 1, block()[10:]), PROTOCOL),
    "6.10 CONTINUATION after the end of a block": (OPEN + raw(9, END_HEADERS, 1, b""), PROTOCOL),
}


@pytest.mark.parametrize(("sent", "code"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS)
def test_connection_error(sent: bytes, code: Code) -> None:
    peer = Peer()
    peer.say(sent)
    assert peer.error() == code
    assert peer.connection.closed_because
    assert peer.connection.open_streams == 0
    opened = [event.stream for event in peer.heard if isinstance(event, StreamOpened)]
    ended = [event.stream for event in peer.heard if isinstance(event, StreamEnded)]
    assert opened == ended


@pytest.mark.parametrize(("sent", "code"), CONNECTION_ERRORS.values(), ids=CONNECTION_ERRORS)
def test_a_connection_error_needs_no_luck_with_the_bytes_boundaries(sent: bytes, code: Code) -> None:
    peer = Peer()
    for byte in sent:
        peer.say(bytes([byte]))
    assert peer.error() == code


STREAM_ERRORS = {
    "5.1 DATA after END_STREAM": (DONE + data(1, b"more"), STREAM_CLOSED),
    "5.1 HEADERS after END_STREAM": (DONE + request(1, end=True), STREAM_CLOSED),
    "5.1 DATA after RST_STREAM": (OPEN + reset(1) + data(1, b"more"), STREAM_CLOSED),
    "6.9 WINDOW_UPDATE of a stream by nothing": (OPEN + window_update(1, 0), PROTOCOL),
    "6.9.1 a stream's window above 2^31-1": (OPEN + window_update(1, 2**31 - 1), FLOW_CONTROL),
    "8.1 trailers without END_STREAM": (OPEN + request(1, fields=(("a", "b"),)), PROTOCOL),
    "8.1 pseudo-headers in trailers": (OPEN + request(1, end=True), PROTOCOL),
    "8.1.1 less DATA than content-length": (request(1, ("content-length", "9")) + data(1, b"abc", end=True), PROTOCOL),
    "8.1.1 more DATA than content-length": (request(1, ("content-length", "7")) + data(1, b"abc"), PROTOCOL),
    "8.1.1 content-length and no DATA at all": (request(1, ("content-length", "1"), end=True), PROTOCOL),
    "8.1.1 a content-length that is no number": (request(1, ("content-length", "+1")), PROTOCOL),
    "8.1.1 two content-lengths": (request(1, ("content-length", "1"), ("content-length", "2")), PROTOCOL),
    "8.2 a name in upper case": (request(1, ("X-Upper", "1")), PROTOCOL),
    "8.2.1 a name with a space": (request(1, ("a b", "1")), PROTOCOL),
    "8.2.1 an empty name": (request(1, ("", "1")), PROTOCOL),
    "8.2.1 a name with a colon within": (request(1, ("a:b", "1")), PROTOCOL),
    "8.2.1 a value with a line feed": (request(1, ("a", "1\n2")), PROTOCOL),
    "8.2.1 a value with a carriage return": (request(1, ("a", "1\r")), PROTOCOL),
    "8.2.1 a value with a zero byte": (request(1, ("a", "\0")), PROTOCOL),
    "8.2.1 a value that begins with a space": (request(1, ("a", " 1")), PROTOCOL),
    "8.2.1 a value that ends with a tab": (request(1, ("a", "1\t")), PROTOCOL),
    "8.2.2 connection": (request(1, ("connection", "close")), PROTOCOL),
    "8.2.2 transfer-encoding": (request(1, ("transfer-encoding", "chunked")), PROTOCOL),
    "8.2.2 keep-alive": (request(1, ("keep-alive", "1")), PROTOCOL),
    "8.2.2 proxy-connection": (request(1, ("proxy-connection", "1")), PROTOCOL),
    "8.2.2 upgrade": (request(1, ("upgrade", "h2c")), PROTOCOL),
    "8.2.2 te other than trailers": (request(1, ("te", "gzip")), PROTOCOL),
    "8.3 an unknown pseudo-header": (request(1, fields=((":status", "200"), *REQUEST)), PROTOCOL),
    "8.3 a pseudo-header twice": (request(1, fields=((":path", "/"), *REQUEST)), PROTOCOL),
    "8.3 a pseudo-header after a regular one": (request(1, fields=(("a", "b"), *REQUEST)), PROTOCOL),
    "8.3 a pseudo-header with a line feed": (request(1, fields=fields(path="/a\n")), PROTOCOL),
    "8.3.1 no :method": (request(1, fields=fields(method=None)), PROTOCOL),
    "8.3.1 no :scheme": (request(1, fields=fields(scheme=None)), PROTOCOL),
    "8.3.1 no :path": (request(1, fields=fields(path=None)), PROTOCOL),
    "8.3.1 an empty :path": (request(1, fields=fields(path="")), PROTOCOL),
}


@pytest.mark.parametrize(("sent", "code"), STREAM_ERRORS.values(), ids=STREAM_ERRORS)
def test_stream_error(sent: bytes, code: Code) -> None:
    peer = Peer()
    peer.say(sent)
    resets = [(each.stream, each.code) for each in peer.frames(Kind.RST_STREAM)]
    assert resets == [(1, code)]
    assert peer.connection.open_streams == 0
    assert peer.say(request(99), data(99, b"still here"))[-1] == MessageReceived(99, b"still here")


TOLERATED = {
    "4.1 unknown flags": OPEN + frame(Kind.DATA, 0xF6, 1, grpc(b"abc")),
    "4.1 the reserved bit of a stream": OPEN + raw(0, 0, 1 | 1 << 31, grpc(b"abc")),
    "5.1 PRIORITY on an idle stream": raw(2, 0, 5, b"\0\0\0\0\0") + OPEN + data(1, b"abc"),
    "5.1 RST_STREAM and WINDOW_UPDATE after the end": request(3)
    + reset(3)
    + reset(3)
    + window_update(3, 1)
    + request(5)
    + data(5, b"abc"),
    "5.5 unknown kinds of frames": OPEN + raw(99, 0, 1, b"x") + raw(200, 255, 0, b"") + data(1, b"abc"),
    "6.1 padded DATA": OPEN + frame(Kind.DATA, PADDED, 1, b"\x03" + grpc(b"abc") + b"\0\0\0"),
    "6.1 DATA that is all padding": OPEN + frame(Kind.DATA, PADDED, 1, b"\x03\0\0\0") + data(1, b"abc"),
    "6.1 empty DATA": OPEN + frame(Kind.DATA, 0, 1) + data(1, b"abc"),
    "6.2 padded HEADERS with a priority": frame(
        Kind.HEADERS, PADDED | PRIORITY | END_HEADERS, 1, b"\x02" + b"\0\0\0\0\x10" + block() + b"\0\0"
    )
    + data(1, b"abc"),
    "6.5 unknown settings": settings((0x99, 1), (Setting.MAX_CONCURRENT_STREAMS, 0)) + OPEN + data(1, b"abc"),
    "6.5 an acknowledgement nobody waits for": frame(Kind.SETTINGS, ACK, 0) + OPEN + data(1, b"abc"),
    "6.7 an answer to no PING": frame(Kind.PING, ACK, 0, b"12345678") + OPEN + data(1, b"abc"),
    "6.8 GOAWAY of a client that goes on": raw(7, 0, 0, b"\0" * 8 + b"bye") + OPEN + data(1, b"abc"),
    "6.10 a header block in three frames": frame(Kind.HEADERS, 0, 1, block()[:5])
    + raw(9, 0, 1, block()[5:9])
    + raw(9, END_HEADERS, 1, block()[9:])
    + data(1, b"abc"),
    "6.10 an empty HEADERS and a CONTINUATION": frame(Kind.HEADERS, 0, 1)
    + raw(9, END_HEADERS, 1, block())
    + data(1, b"abc"),
    "8.2.3 several cookies": request(1, ("cookie", "a=1"), ("cookie", "b=2")) + data(1, b"abc"),
    "8.1.1 a content-length that is right": request(1, ("content-length", "8")) + data(1, b"abc"),
    "8.1.1 an equal content-length twice": request(1, ("content-length", "8"), ("content-length", "8"))
    + data(1, b"abc"),
}


@pytest.mark.parametrize("sent", TOLERATED.values(), ids=TOLERATED)
def test_tolerated(sent: bytes) -> None:
    whole, in_bytes = Peer(), Peer()
    whole.say(sent)
    for byte in sent:
        in_bytes.say(bytes([byte]))
    assert [event.data for event in whole.heard if isinstance(event, MessageReceived)] == [b"abc"]
    assert whole.heard == in_bytes.heard
    assert whole.error() is None
