"""Flow control, both ways: who waits for whom, in which order, and that nobody waits for ever."""

import pytest
from wire_judge import Client
from wire_peer import Peer, data, grpc, request, reset, settings, window_update

from picker.wire.events import MessageReceived, Reason, StreamEnded
from picker.wire.frames import END_STREAM, Code, Kind, Setting, frame
from picker.wire.limits import WireLimits

HUGE = window_update(0, 2**30) + settings((Setting.INITIAL_WINDOW_SIZE, 2**30))


def sent(peer: Peer, stream: int | None = None) -> int:
    """Bytes of DATA since the last look."""
    return sum(len(each.payload) for each in peer.frames(Kind.DATA) if stream in (None, each.stream))


def test_a_stream_sends_as_much_as_its_window_lets_it() -> None:
    peer = Peer()
    peer.say(window_update(0, 10**6), request(1))
    peer.connection.send_message(1, b"x" * 100_000)
    assert sent(peer) == 65_535
    peer.say(window_update(1, 1000))
    assert sent(peer) == 1000
    peer.say(window_update(1, 10**6))
    assert sent(peer) == 100_005 - 66_535


def test_all_streams_together_send_as_much_as_the_connections_window_lets_them() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), request(1), request(3))
    peer.connection.send_message(1, b"x" * 65_000)
    peer.connection.send_message(3, b"x" * 1000)
    assert sent(peer) == 65_535
    peer.say(window_update(0, 100))
    assert sent(peer, 3) == 100
    peer.say(window_update(0, 10**6))
    assert sent(peer, 3) == 1005 - 100 - (65_535 - 65_005)


def test_a_message_that_would_fit_waits_behind_one_that_did_not() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), request(1), request(3))
    peer.connection.send_message(3, b"x" * 65_530)
    peer.connection.send_message(1, b"first" * 1000)
    peer.say(window_update(0, 10))
    peer.connection.send_message(1, b"")
    peer.say(window_update(0, 10**6))
    stream = b"".join(each.payload for each in peer.frames(Kind.DATA) if each.stream == 1)
    assert stream == grpc(b"first" * 1000, b"")


def test_streams_that_wait_for_the_connection_take_turns() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), *(request(stream) for stream in (1, 3, 5)))
    peer.connection.send_message(1, b"x" * 65_530)
    for stream in (1, 3, 5):
        peer.connection.send_message(stream, b"x" * 50_000)
    peer.frames()
    peer.say(window_update(0, 100_000))
    assert [each.stream for each in peer.frames(Kind.DATA)] == [1, 3, 5, 1, 3, 5, 1]


def test_a_smaller_initial_window_makes_streams_wait_even_below_zero() -> None:
    peer = Peer()
    peer.say(window_update(0, 10**6), request(1))
    peer.connection.send_message(1, b"x" * 50_000)
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 1000)))
    peer.connection.send_message(1, b"y" * 500)
    assert sent(peer) == 50_005
    peer.say(window_update(1, 50_005 - 1000))
    assert sent(peer) == 0
    peer.say(window_update(1, 505))
    assert sent(peer) == 505


def test_a_stream_whose_turn_is_next_may_lose_its_window() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), request(1))
    peer.connection.send_message(1, b"x" * 70_000)
    peer.frames()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), window_update(0, 10**6))
    assert peer.frames(Kind.DATA) == []
    peer.say(window_update(1, 65_535 + 200))
    assert sent(peer) == 200


def test_a_larger_initial_window_lets_all_go_on() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1), request(3, end=True))
    peer.connection.send_message(1, b"x" * 100)
    peer.connection.send_message(3, b"x" * 100)
    peer.connection.finish(3)
    assert sent(peer) == 0
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 50)))
    assert sent(peer) == 100
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 200)))
    assert sent(peer) == 110
    assert peer.connection.open_streams == 1


def test_a_reset_stream_gives_its_turn_to_the_others() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), request(1), request(3))
    peer.connection.send_message(1, b"x" * 200_000)
    peer.connection.send_message(3, b"x" * 1000)
    peer.frames()
    peer.say(reset(1), window_update(0, 10**6))
    assert sent(peer) == 1005


def test_room_is_given_back_once_for_every_half_of_a_window() -> None:
    peer = Peer(WireLimits(stream_window=100_000, connection_window=200_000))
    peer.say(request(1))
    for _ in range(25):
        peer.say(data(1, b"x" * 9_995))
    updates = [(each.stream, int.from_bytes(each.payload, "big")) for each in peer.frames(Kind.WINDOW_UPDATE)]
    assert updates == [(1, 60_000), (0, 110_000), (1, 60_000), (1, 60_000), (0, 110_000), (1, 60_000)]


def test_padding_counts_and_is_given_back() -> None:
    peer = Peer(WireLimits(stream_window=70_000))
    peer.say(request(1), *(frame(Kind.DATA, 8, 1, b"\xff" + grpc(b"x" * 10) + bytes(255)) for _ in range(150)))
    (update,) = peer.frames(Kind.WINDOW_UPDATE)
    assert int.from_bytes(update.payload, "big") == 130 * 271


def test_what_crosses_our_reset_is_given_back_to_the_connection() -> None:
    peer = Peer(WireLimits(connection_window=100_000, stream_window=50_000))
    peer.say(request(1))
    peer.connection.reset(1)
    peer.frames()
    peer.say(*(data(1, b"x" * 10_000) for _ in range(6)))
    (update,) = peer.frames(Kind.WINDOW_UPDATE)
    assert (update.stream, int.from_bytes(update.payload, "big")) == (0, 50_025)


def test_a_finished_stream_whose_peer_goes_on_takes_no_room_from_others() -> None:
    peer = Peer(WireLimits(stream_window=50_000))
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1))
    peer.connection.send_message(1, b"x")
    peer.connection.finish(1)
    assert peer.say(*(data(1, b"x" * 10_000) for _ in range(20))) == []
    assert len(peer.frames(Kind.WINDOW_UPDATE)) == 6


@pytest.mark.parametrize("streams", [1, 3, 10])
def test_long_messages_side_by_side_all_arrive_though_they_do_not_fit_together(streams: int) -> None:
    """The longest message and all windows fit into half of what is held of messages under way; all messages do not."""
    limits = WireLimits(message_bytes=20_000, assembling_bytes=2 * (20_005 + streams * 4000), stream_window=4000)
    client = Client(limits, [[20_000, 0, 20_000]] * streams, 65_535)
    for _ in range(200):
        for stream in client.messages:
            client.turn(stream, 16_384, 0, 9000)
    assert client.heard == client.messages
    assert client.done
    client.judge.end()


def test_a_stream_that_was_first_and_has_gone_lets_the_next_go_on() -> None:
    limits = WireLimits(assembling_bytes=60_000, stream_window=10_000)
    peer = Peer(limits)
    piece = frame(Kind.DATA, 0, 1, grpc(b"x" * 30_000)[:9_000])
    for stream in (1, 3, 5, 7):
        peer.say(request(stream), piece[:5] + stream.to_bytes(4, "big") + piece[9:])
    waiting = {3, 5, 7} - {each.stream for each in peer.frames(Kind.WINDOW_UPDATE)}
    assert waiting == {7}
    peer.say(reset(1))
    assert [each.stream for each in peer.frames(Kind.WINDOW_UPDATE)] == [7]


def test_a_stream_refused_in_the_middle_of_messages_leaves_nothing_behind() -> None:
    peer = Peer(WireLimits(message_bytes=7_000, assembling_bytes=8_000))
    for stream in range(1, 21, 2):
        peer.say(request(stream), frame(Kind.DATA, 0, stream, grpc(b"x" * 5_000)[:4_000]))
        heard = peer.say(frame(Kind.DATA, 0, stream, b"x" * 1_005 + b"\1\0\0\0\0"))
        assert heard == [StreamEnded(stream, Reason.REFUSED)]
    whole = grpc(b"x" * 7_000)
    peer.say(request(21), frame(Kind.DATA, 0, 21, whole[:6_000]))
    assert peer.say(frame(Kind.DATA, 0, 21, whole[6_000:])) == [MessageReceived(21, b"x" * 7_000)]


def test_who_begins_another_message_is_no_longer_first() -> None:
    peer = Peer(WireLimits(assembling_bytes=20_000, stream_window=8_000))
    first, second = grpc(b"x" * 6_000, b"z" * 9_000), grpc(b"y" * 15_000)
    peer.say(request(1), frame(Kind.DATA, 0, 1, first[:4_500]))
    peer.say(request(3), frame(Kind.DATA, 0, 3, second[:5_000]), frame(Kind.DATA, 0, 3, second[5_000:9_500]))
    assert [each.stream for each in peer.frames(Kind.WINDOW_UPDATE)] == [1, 3]
    peer.say(frame(Kind.DATA, 0, 1, first[4_500:11_000]))
    assert [each.stream for each in peer.frames(Kind.WINDOW_UPDATE)] == [3]


def test_a_held_stream_whose_owner_finishes_it_is_done() -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"))
    peer.connection.hold(1)
    peer.connection.finish(1)
    assert peer.say(data(1, b"b"), frame(Kind.DATA, END_STREAM, 1)) == []
    assert peer.connection.open_streams == 0


def test_only_the_stream_that_goes_too_far_is_refused() -> None:
    peer = Peer(WireLimits(stream_window=20_000))
    peer.say(request(1), request(3))
    peer.connection.hold(1)
    heard = peer.say(*(data(1, b"x" * 9_000) for _ in range(3)), data(3, b"y"))
    assert heard[-2:] == [StreamEnded(1, Reason.REFUSED), MessageReceived(3, b"y")]
    assert [each.code for each in peer.frames(Kind.RST_STREAM)] == [Code.FLOW_CONTROL_ERROR]
