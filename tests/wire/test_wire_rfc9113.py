"""RFC 9113, section by section: what a server says, keeps and remembers."""

import pytest
from wire_peer import Peer, data, raw, request, reset, settings, window_update

from picker.wire.connection import Connection
from picker.wire.events import HalfClosed, MessageReceived, Reason, StreamEnded, StreamOpened
from picker.wire.frames import ACK, END_HEADERS, PREFACE, Code, Kind, Setting, frame
from picker.wire.limits import WireLimits

PING = frame(Kind.PING, 0, 0, b"12345678")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", PREFACE[:-1] + b"X", b"\x16\x03\x01"])
def test_3_4_a_peer_that_does_not_begin_as_it_should_is_sent_away(sent: bytes) -> None:
    peer = Peer(greeting=b"")
    peer.say(sent, PING)
    assert peer.error() == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [PING, request(1), frame(Kind.SETTINGS, ACK, 0), raw(99, 0, 0)])
def test_3_4_the_first_frame_has_to_be_settings(first: bytes) -> None:
    peer = Peer(greeting=PREFACE)
    peer.say(first)
    assert peer.error() == Code.PROTOCOL_ERROR


def test_3_4_we_begin_with_settings_and_acknowledge_the_peers() -> None:
    connection = Connection(WireLimits(), 0.0)
    assert connection.data_to_send()[3:9] == bytes([Kind.SETTINGS, 0, 0, 0, 0, 0])
    assert connection.receive(PREFACE + settings(), 0.0) == []
    assert connection.data_to_send() == frame(Kind.SETTINGS, ACK, 0)


def test_4_3_a_peer_may_use_its_table_until_it_has_read_our_settings() -> None:
    peer = Peer(greeting=PREFACE + settings())
    indexed = b"\x83\x86\x44\x02/x\x40\x0ccontent-type\x10application/grpc"
    again = b"\x83\x86\xbf\xbe"
    heard = peer.say(frame(Kind.HEADERS, END_HEADERS, 1, indexed), frame(Kind.HEADERS, END_HEADERS, 3, again))
    assert [event.path for event in heard if isinstance(event, StreamOpened)] == ["/x", "/x"]
    assert peer.say(frame(Kind.SETTINGS, ACK, 0), request(5)) != []
    peer.say(frame(Kind.HEADERS, END_HEADERS, 7, again))
    assert peer.error() == Code.COMPRESSION_ERROR


def test_5_1_frames_that_cross_our_reset_are_let_pass() -> None:
    peer = Peer()
    peer.say(request(1))
    peer.connection.reset(1)
    peer.frames()
    late = data(1, b"a") + window_update(1, 5) + request(1, fields=(("a", "b"),), end=True) + reset(1)
    assert peer.say(late) == []
    assert peer.frames() == []
    assert peer.error() is None


def test_5_1_1_a_stream_left_out_can_no_longer_be_opened() -> None:
    peer = Peer()
    peer.say(request(7), request(5))
    assert peer.error() == Code.PROTOCOL_ERROR


def test_5_1_2_streams_over_the_limit_are_refused_and_may_be_tried_again() -> None:
    peer = Peer(WireLimits(streams=2))
    heard = peer.say(request(1), request(3), request(5))
    assert [event.stream for event in heard if isinstance(event, StreamOpened)] == [1, 3]
    (refused,) = peer.frames(Kind.RST_STREAM)
    assert (refused.stream, refused.code) == (5, Code.REFUSED_STREAM)
    peer.connection.finish(1)
    assert isinstance(peer.say(request(7))[0], StreamOpened)


def test_6_5_2_a_smaller_maximum_frame_is_kept() -> None:
    peer = Peer()
    peer.say(settings((Setting.MAX_FRAME_SIZE, 20_000)), request(1))
    peer.connection.send_message(1, b"x" * 50_000)
    assert [len(each.payload) for each in peer.frames(Kind.DATA)] == [20_000, 20_000, 10_005]


def test_6_7_a_ping_comes_back() -> None:
    peer = Peer()
    peer.say(PING)
    (answer,) = peer.frames()
    assert (answer.kind, answer.flags, answer.payload) == (Kind.PING, ACK, b"12345678")


def test_6_8_draining_takes_what_crossed_the_first_word_and_ignores_what_follows_the_last() -> None:
    peer = Peer()
    peer.say(request(1))
    peer.connection.go_away()
    first, ping = peer.frames()
    assert int.from_bytes(first.payload[:4], "big") == 2**31 - 1
    assert isinstance(peer.say(request(3))[0], StreamOpened)
    peer.say(frame(Kind.PING, ACK, 0, ping.payload))
    (last,) = peer.frames()
    assert (int.from_bytes(last.payload[:4], "big"), last.code) == (3, Code.NO_ERROR)
    assert peer.say(request(5), data(5, b"ignored")) == []
    assert peer.say(data(1, b"goes on")) == [MessageReceived(1, b"goes on")]
    peer.connection.finish(1)
    assert not peer.connection.closing
    peer.connection.finish(3)
    assert peer.connection.closing
    assert peer.connection.closed_because == ""


def test_6_8_an_idle_connection_is_drained_by_a_ping() -> None:
    peer = Peer()
    peer.connection.go_away()
    ping = peer.frames(Kind.PING)[0]
    assert not peer.connection.closing
    peer.say(frame(Kind.PING, ACK, 0, ping.payload))
    assert peer.connection.closing


def test_6_8_the_final_word_ends_every_stream() -> None:
    peer = Peer()
    peer.say(request(1), request(3))
    peer.connection.finish(1)
    assert peer.connection.shut() == [StreamEnded(3, Reason.CONNECTION)]
    assert peer.error() == Code.NO_ERROR
    assert peer.connection.disconnected() == []


def test_a_lost_connection_ends_every_stream_once() -> None:
    peer = Peer()
    peer.say(request(1), request(3))
    ends = [StreamEnded(1, Reason.CONNECTION), StreamEnded(3, Reason.CONNECTION)]
    assert peer.connection.disconnected() == ends
    assert peer.connection.disconnected() == []
    assert peer.say(request(5)) == []


def test_8_1_the_request_of_a_stream_may_be_headers_alone() -> None:
    assert [type(event) for event in Peer().say(request(1, end=True))] == [StreamOpened, HalfClosed]
