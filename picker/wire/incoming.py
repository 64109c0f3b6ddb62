"""What each frame of a peer does (RFC 9113 section 6), and what it must not be.

Every function takes the session, the frame's flags, its stream and its payload. All raise `Broken` for connection
errors; stream errors end their stream.
"""

import struct
from collections.abc import Callable
from typing import Final

from picker.wire.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    LARGEST,
    PRIORITY,
    Broken,
    Code,
    Kind,
    Setting,
    frame,
    go_away,
    parse_settings,
    unpadded,
    window_update,
)
from picker.wire.session import Session

DRAIN: Final = b"draining"
"""In the PING behind the first of two GOAWAYs: once it is back, no stream that crossed it is on its way any more."""
_TINY: Final = 256
"""A DATA frame that completes nothing and is shorter than this brings no request nearer to its answer."""
_PIECES: Final = 16
"""Frames of one header block. At 16 KiB each, far more than the longest list we read."""
_LOOKS: Final = 16
"""Streams whose windows a change of the initial one visits for the price of one frame."""


def incoming(session: Session, kind: int, flags: int, number: int, payload: bytes) -> None:
    """Any frame."""
    if len(payload) > FRAME_BYTES:
        raise Broken(Code.FRAME_SIZE_ERROR, "a frame is too long")
    number &= LARGEST
    session.lanes.close(number)
    if session.block is not None and (kind != Kind.CONTINUATION or number != session.block_stream):
        raise Broken(Code.PROTOCOL_ERROR, "a header block is interrupted")
    if not session.started:
        if kind != Kind.SETTINGS or flags & ACK:
            raise Broken(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        session.started = True
        session.quick = session.streams
    handler = _HANDLERS.get(kind)
    if handler is None:
        session.idle_frame()
    else:
        handler(session, flags, number, payload)


def connection_room(session: Session) -> None:
    """Give the connection room back for all that came, once for every half of its window."""
    if 2 * session.taken > session.limits.connection_window:
        session.outbox.put(window_update(0, session.taken))
        session.taken = 0


def _data(session: Session, flags: int, number: int, payload: bytes) -> None:
    session.taken += len(payload)
    connection_room(session)
    stream = session.streams.get(number)
    if stream is None:
        _on_ended_stream(session, number)
        return
    if stream.remote_closed:
        session.fail(stream, Code.STREAM_CLOSED)
        return
    content = unpadded(flags, payload)
    ends = flags & END_STREAM
    stream.taken += len(payload)
    stream.moved += 1
    if stream.taken > session.limits.stream_window:
        session.fail(stream, Code.FLOW_CONTROL_ERROR)
        return
    if stream.length >= 0:
        stream.length -= len(content)
        if stream.length < 0:
            session.fail(stream, Code.PROTOCOL_ERROR)
            return
    if not session.content(stream, content) and len(payload) < _TINY and not ends:
        session.idle_frame()
    if number not in session.streams:
        return
    if ends:
        session.half_close(stream)
    else:
        session.room(stream)


def _headers(session: Session, flags: int, number: int, payload: bytes) -> None:
    if not number % 2:
        raise Broken(Code.PROTOCOL_ERROR, "HEADERS on a stream that no client opens")
    block = unpadded(flags, payload)
    if flags & PRIORITY:
        if len(block) < 5:
            raise Broken(Code.FRAME_SIZE_ERROR, "HEADERS too short for a priority")
        block = block[5:]
    if flags & END_HEADERS:
        _fields(session, number, block, bool(flags & END_STREAM))
    else:
        session.block = bytearray(block)
        session.block_stream = number
        session.block_ends = bool(flags & END_STREAM)
        session.pieces = 1
        session.quick = {}


def _continuation(session: Session, flags: int, number: int, payload: bytes) -> None:
    if session.block is None:
        raise Broken(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
    session.block += payload
    session.pieces += 1
    if session.pieces > _PIECES or len(session.block) > 4 * session.limits.header_bytes:
        raise Broken(Code.ENHANCE_YOUR_CALM, "a header block without end")
    if flags & END_HEADERS:
        block, session.block = bytes(session.block), None
        session.quick = session.streams
        _fields(session, number, block, session.block_ends)


def _fields(session: Session, number: int, block: bytes, ends: bool) -> None:
    """A whole header block: a request, or the trailers of one."""
    stream = session.streams.get(number)
    if stream is None and number > session.last:
        session.open(number, session.blocks.request(block), ends)
        return
    well_formed = session.blocks.trailers(block)
    if stream is None:
        late = session.closed.late_frames(number)
        if not late:
            code = Code.PROTOCOL_ERROR if late is None else Code.STREAM_CLOSED
            raise Broken(code, "HEADERS on a stream that has ended")
        session.idle_frame()
    elif stream.remote_closed:
        session.fail(stream, Code.STREAM_CLOSED)
    elif not ends or not well_formed:
        session.fail(stream, Code.PROTOCOL_ERROR)
    else:
        session.half_close(stream)


def _priority(session: Session, flags: int, number: int, payload: bytes) -> None:
    """Section 5.3.2: priorities are obsolete, and ignored."""
    if not number:
        raise Broken(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
    if len(payload) != 5:
        raise Broken(Code.FRAME_SIZE_ERROR, "PRIORITY not of five bytes")
    session.idle_frame()


def _rst_stream(session: Session, flags: int, number: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise Broken(Code.FRAME_SIZE_ERROR, "RST_STREAM not of four bytes")
    stream = session.streams.get(number)
    if stream is None:
        _begun(session, number)
        session.idle_frame()
    else:
        session.reset_by_peer(stream)


def _settings(session: Session, flags: int, number: int, payload: bytes) -> None:
    if number:
        raise Broken(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
    session.idle_frame()
    if flags & ACK:
        if payload:
            raise Broken(Code.FRAME_SIZE_ERROR, "an acknowledgement with content")
        session.watch.settled = True
        session.blocks.settled()
        return
    for name, value in parse_settings(payload):
        if name == Setting.MAX_FRAME_SIZE:
            session.outbox.use_frames_of(value)
        elif name == Setting.INITIAL_WINDOW_SIZE:
            _initial_window(session, value)
    session.outbox.put(frame(Kind.SETTINGS, ACK, 0))
    session.end_late()


def _initial_window(session: Session, size: int) -> None:
    """Section 6.9.2: all windows move by the difference, below zero if need be."""
    session.idle_frame(len(session.streams) / _LOOKS)
    session.lanes.close_all()
    more = size - session.peer_window
    session.peer_window = size
    for stream in session.streams.values():
        if not session.outbox.open_stream_window(stream, more):
            raise Broken(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window overflow")


def _push_promise(session: Session, flags: int, number: int, payload: bytes) -> None:
    raise Broken(Code.PROTOCOL_ERROR, "PUSH_PROMISE from a client")


def _ping(session: Session, flags: int, number: int, payload: bytes) -> None:
    if number:
        raise Broken(Code.PROTOCOL_ERROR, "PING on a stream")
    if len(payload) != 8:
        raise Broken(Code.FRAME_SIZE_ERROR, "PING not of eight bytes")
    session.idle_frame()
    if not flags & ACK:
        session.outbox.put(frame(Kind.PING, ACK, 0, payload))
    elif payload == DRAIN and session.draining and session.accepts > session.last:
        session.accepts = session.last
        session.outbox.put(go_away(session.last, Code.NO_ERROR))
        session.close_when_drained()


def _go_away(session: Session, flags: int, number: int, payload: bytes) -> None:
    """A client's: it takes no pushed streams, of which there are none. It closes the connection when it is done."""
    if number:
        raise Broken(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
    if len(payload) < 8:
        raise Broken(Code.FRAME_SIZE_ERROR, "GOAWAY shorter than eight bytes")
    session.idle_frame()


def _window_update(session: Session, flags: int, number: int, payload: bytes) -> None:
    if len(payload) != 4:
        raise Broken(Code.FRAME_SIZE_ERROR, "WINDOW_UPDATE not of four bytes")
    session.idle_frame()
    (more,) = struct.unpack(">I", payload)
    more &= LARGEST
    if not number:
        if not more:
            raise Broken(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        session.outbox.open_window(more)
    elif (stream := session.streams.get(number)) is None:
        _begun(session, number)
    elif not more:
        session.fail(stream, Code.PROTOCOL_ERROR)
    elif not session.outbox.open_stream_window(stream, more):
        session.fail(stream, Code.FLOW_CONTROL_ERROR)
    session.end_late()


def _begun(session: Session, number: int) -> None:
    """Section 5.1: of idle streams only HEADERS and PRIORITY may speak."""
    if not number or number > session.last or not number % 2:
        raise Broken(Code.PROTOCOL_ERROR, "a frame on a stream that was never opened")


def _on_ended_stream(session: Session, number: int) -> None:
    """DATA behind the end: of a stream that we ended it was on its way; else it is an error of the stream."""
    _begun(session, number)
    session.idle_frame()
    if not session.closed.late_frames(number):
        session.outbox.put(frame(Kind.RST_STREAM, 0, number, struct.pack(">I", Code.STREAM_CLOSED)))
        session.wasted()


_HANDLERS: Final[dict[int, Callable[[Session, int, int, bytes], None]]] = {
    Kind.DATA: _data,
    Kind.HEADERS: _headers,
    Kind.PRIORITY: _priority,
    Kind.RST_STREAM: _rst_stream,
    Kind.SETTINGS: _settings,
    Kind.PUSH_PROMISE: _push_promise,
    Kind.PING: _ping,
    Kind.GOAWAY: _go_away,
    Kind.WINDOW_UPDATE: _window_update,
    Kind.CONTINUATION: _continuation,
}
