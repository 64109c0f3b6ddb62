"""A call as gRPC describes it: headers, messages, status."""

import base64
import itertools
import math

import pytest
from wire_peer import REQUEST, Peer, data, grpc, request, reset, window_update

from picker.wire.events import HalfClosed, MessageReceived, Reason, StreamEnded, StreamOpened
from picker.wire.frames import END_HEADERS, END_STREAM, Code, Kind, frame
from picker.wire.limits import WireLimits


def test_a_unary_call_is_opened_heard_and_answered() -> None:
    peer = Peer()
    heard = peer.say(request(1, ("x-picker-pool", "big")), data(1, b"question", end=True))
    assert heard == [
        StreamOpened(1, "/test.Echo/Stream", (("x-picker-pool", "big"),), math.inf),
        MessageReceived(1, b"question"),
        HalfClosed(1),
    ]
    peer.connection.send_message(1, b"answer")
    peer.connection.finish(1)
    head, message, trailers = peer.frames()
    assert peer.fields(head) == {":status": "200", "content-type": "application/grpc"}
    assert message.payload == grpc(b"answer")
    assert (trailers.flags, peer.fields(trailers)) == (END_HEADERS | END_STREAM, {"grpc-status": "0"})
    assert peer.connection.open_streams == 0


def test_a_call_that_is_refused_at_once_has_headers_and_status_in_one() -> None:
    peer = Peer()
    peer.say(request(1, end=True))
    peer.connection.finish(1, 12, "no such method: 100 % sure, ångström")
    (only,) = peer.frames()
    assert peer.fields(only) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "12",
        "grpc-message": "no such method: 100 %25 sure, %C3%A5ngstr%C3%B6m",
    }


def test_whoever_still_sends_after_the_status_is_told_to_stop_and_is_not_heard() -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"))
    peer.connection.finish(1)
    assert [each.kind for each in peer.frames()] == [Kind.HEADERS, Kind.RST_STREAM]
    assert peer.say(data(1, b"late"), frame(Kind.DATA, END_STREAM, 1)) == []
    assert peer.frames() == []


def test_sends_to_streams_that_are_gone_do_nothing() -> None:
    peer = Peer()
    peer.say(request(1), reset(1))
    peer.connection.send_message(1, b"a")
    peer.connection.finish(1)
    peer.connection.reset(1)
    peer.connection.hold(7)
    peer.connection.release(7)
    assert (peer.frames(), peer.connection.queued_bytes(1), peer.connection.queued_total) == ([], 0, 0)


def test_a_reset_by_the_owner_carries_its_code() -> None:
    peer = Peer()
    peer.say(request(1))
    peer.connection.reset(1, Code.REFUSED_STREAM)
    (frame_sent,) = peer.frames()
    assert (frame_sent.kind, frame_sent.code) == (Kind.RST_STREAM, Code.REFUSED_STREAM)


@pytest.mark.parametrize("cuts", [(1,), (3, 4), (5,), (6,), (100, 200, 300)])
def test_a_message_may_come_in_any_pieces(cuts: tuple[int, ...]) -> None:
    peer = Peer()
    whole = grpc(b"x" * 500)
    edges = (0, *cuts, len(whole))
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    heard = peer.say(request(1), *(frame(Kind.DATA, 0, 1, piece) for piece in pieces))
    assert heard[1:] == [MessageReceived(1, b"x" * 500)]


def test_a_frame_may_hold_several_messages_and_the_beginning_of_one() -> None:
    peer = Peer()
    run = grpc(b"a", b"", b"ccc")
    heard = peer.say(request(1), frame(Kind.DATA, 0, 1, run[:-2]), frame(Kind.DATA, END_STREAM, 1, run[-2:]))
    assert heard[1:] == [
        MessageReceived(1, b"a"),
        MessageReceived(1, b""),
        MessageReceived(1, b"ccc"),
        HalfClosed(1),
    ]


def test_a_large_message_arrives_whole() -> None:
    peer = Peer()
    message = bytes(range(256)) * 8192
    whole = grpc(message)
    frames = [frame(Kind.DATA, 0, 1, whole[at : at + 16_384]) for at in range(0, len(whole), 16_384)]
    peer.say(request(1))
    for each in frames:
        peer.say(each)
    assert peer.heard[-1] == MessageReceived(1, message)


def test_a_stream_that_ends_within_a_message_is_an_internal_error() -> None:
    peer = Peer()
    heard = peer.say(request(1), frame(Kind.DATA, END_STREAM, 1, grpc(b"abc")[:-1]))
    assert heard[1:] == [StreamEnded(1, Reason.REFUSED)]
    assert peer.fields(peer.frames()[0])["grpc-status"] == "13"


def test_a_message_over_the_limit_is_refused_before_it_is_read() -> None:
    peer = Peer(WireLimits(message_bytes=1000))
    heard = peer.say(request(1), frame(Kind.DATA, 0, 1, grpc(b"x" * 1001)[:5]))
    assert heard[1:] == [StreamEnded(1, Reason.REFUSED)]
    answer, stop = peer.frames()
    assert peer.fields(answer)["grpc-status"] == "8"
    assert (stop.kind, stop.code) == (Kind.RST_STREAM, Code.NO_ERROR)


def test_a_whole_message_over_the_limit_is_refused() -> None:
    peer = Peer(WireLimits(message_bytes=1000))
    assert peer.say(request(1), data(1, b"x" * 1001))[1:] == [StreamEnded(1, Reason.REFUSED)]
    assert peer.say(request(3), data(3, b"x" * 1000))[1:] == [MessageReceived(3, b"x" * 1000)]


def test_compression_that_was_announced_is_unimplemented_and_the_peer_told_what_is_accepted() -> None:
    peer = Peer()
    peer.say(request(1, ("grpc-encoding", "gzip")), frame(Kind.DATA, 0, 1, b"\1" + grpc(b"abc")[1:]))
    fields = peer.fields(peer.frames()[0])
    assert (fields["grpc-status"], fields["grpc-accept-encoding"]) == ("12", "identity")


@pytest.mark.parametrize("flags", [0, END_STREAM])
@pytest.mark.parametrize("encoding", [(), (("grpc-encoding", "identity"),)])
def test_compression_that_was_not_announced_is_an_internal_error(
    encoding: tuple[tuple[str, str], ...], flags: int
) -> None:
    peer = Peer()
    heard = peer.say(request(1, *encoding), frame(Kind.DATA, flags, 1, b"\1" + grpc(b"abc")[1:]))
    assert heard[1:] == [StreamEnded(1, Reason.REFUSED)]
    assert peer.fields(peer.frames()[0])["grpc-status"] == "13"


def test_a_peer_that_may_compress_but_does_not_is_served() -> None:
    heard = Peer().say(request(1, ("grpc-encoding", "gzip")), data(1, b"plain"))
    assert heard[-1] == MessageReceived(1, b"plain")


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1H", 3600), ("2M", 120), ("10S", 10), ("250m", 0.25), ("5000u", 0.005), ("99999999n", 0.099999999)],
)
def test_a_timeout_becomes_a_deadline(timeout: str, seconds: float) -> None:
    peer = Peer(now=100.0)
    (opened,) = peer.say(request(1, ("grpc-timeout", timeout)))
    assert isinstance(opened, StreamOpened)
    assert opened.deadline == pytest.approx(100.0 + seconds)


def test_a_call_whose_deadline_passes_gets_its_status_and_ends_once() -> None:
    peer = Peer()
    peer.say(request(1, ("grpc-timeout", "2S")))
    assert peer.connection.deadline == 2.0
    assert peer.wait(1.9) == []
    assert peer.wait(0.1) == [StreamEnded(1, Reason.DEADLINE)]
    assert peer.fields(peer.frames()[0])["grpc-status"] == "4"
    assert peer.wait(10) == []


@pytest.mark.parametrize("timeout", ["", "S", "1", "1X", "123456789S", "-1S", "1.5S"])
def test_a_timeout_that_is_none_is_refused(timeout: str) -> None:
    peer = Peer()
    assert peer.say(request(1, ("grpc-timeout", timeout), end=True)) == []
    assert peer.fields(peer.frames()[0])["grpc-status"] == "13"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (":method", "GET", "405"),
        ("content-type", "text/plain", "415"),
        ("content-type", "application/grpc-web", "415"),
        ("content-type", "application/grpcx", "415"),
    ],
)
def test_who_does_not_speak_grpc_gets_an_http_status(name: str, value: str, status: str) -> None:
    peer = Peer()
    fields = [(each, value if each == name else old) for each, old in REQUEST]
    assert peer.say(request(1, fields=fields, end=True)) == []
    assert peer.fields(peer.frames()[0]) == {":status": status}


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "Application/GRPC"])
def test_grpc_may_name_its_encoding(kind: str) -> None:
    fields = [(name, kind if name == "content-type" else value) for name, value in REQUEST]
    assert isinstance(Peer().say(request(1, fields=fields))[0], StreamOpened)


def test_metadata_comes_in_order_repeated_and_undecoded() -> None:
    binary = base64.b64encode(b"\0\1").decode()
    sent = (("a", "1"), ("a-bin", binary), ("a", "2"), ("user-agent", "me"), ("grpc-timeout", "1S"))
    (opened,) = Peer().say(request(1, *sent))
    assert isinstance(opened, StreamOpened)
    assert opened.metadata == sent[:4]


def test_trailers_of_a_client_end_its_side() -> None:
    peer = Peer()
    heard = peer.say(request(1), request(1, fields=(("x-checksum", "1"),), end=True))
    assert heard[1:] == [HalfClosed(1)]


def test_what_waits_for_a_window_goes_out_before_the_status() -> None:
    peer = Peer()
    peer.say(request(1, end=True))
    peer.connection.send_message(1, b"x" * 70_000)
    peer.connection.finish(1)
    peer.connection.send_message(1, b"after the end")
    assert peer.connection.open_streams == 1
    first = b"".join(each.payload for each in peer.frames(Kind.DATA))
    assert (len(first), peer.connection.queued_bytes(1)) == (65_535, 70_005 - 65_535)
    peer.say(window_update(0, 100_000), window_update(1, 100_000))
    *rest, trailers = peer.frames()
    assert first + b"".join(each.payload for each in rest) == grpc(b"x" * 70_000)
    assert peer.fields(trailers) == {"grpc-status": "0"}
    assert peer.connection.open_streams == 0


def test_a_stream_finished_but_not_yet_taken_says_nothing_more_about_its_end() -> None:
    peer = Peer()
    peer.say(request(1))
    peer.connection.send_message(1, b"x" * 70_000)
    peer.connection.finish(1)
    assert peer.say(data(1, b"unwanted"), frame(Kind.DATA, END_STREAM, 1)) == []
    assert peer.say(reset(1)) == []
    peer.frames()
    assert (peer.connection.queued_total, peer.connection.open_streams) == (0, 0)
