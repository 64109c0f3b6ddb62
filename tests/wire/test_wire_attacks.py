"""What is known to bring HTTP/2 servers down, and where each of it ends here: in bounded memory, with an error code."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from wire_peer import REQUEST, Peer, block, data, grpc, plain, raw, request, reset, settings, window_update

from picker.wire.events import MessageReceived, Reason, StreamEnded, StreamOpened
from picker.wire.frames import ACK, END_HEADERS, END_STREAM, PADDED, PREFACE, Code, Kind, Setting, frame
from picker.wire.limits import WireLimits

CALM = Code.ENHANCE_YOUR_CALM
TIGHT = WireLimits(idle_frames=500, idle_frames_per_s=100, resets=200, resets_per_s=10)
PING = frame(Kind.PING, 0, 0, b"12345678")


@contextmanager
def memory_below(mib: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * 2**20
    finally:
        tracemalloc.stop()


def flood(peer: Peer, say: Callable[[int], bytes], at_most: int) -> int:
    """Says it again and again; how often until the connection was closed."""
    for time in range(at_most):
        peer.say(say(time))
        if peer.connection.closing:
            return time
    raise AssertionError("borne without end")


def test_rapid_reset() -> None:
    peer = Peer(TIGHT)
    times = flood(peer, lambda time: request(2 * time + 1) + reset(2 * time + 1), 1000)
    assert (times, peer.error()) == (TIGHT.resets, CALM)


def test_resets_after_an_answer_are_a_proxys_daily_bread() -> None:
    peer = Peer(TIGHT)
    for stream in range(1, 1_601, 2):
        peer.say(request(stream), data(stream, b"a"))
        peer.connection.send_message(stream, b"b")
        peer.say(reset(stream))
    assert peer.error() is None


def test_a_proxy_whose_clients_leave_early_now_and_then_is_served() -> None:
    peer = Peer(TIGHT)
    for stream in range(1, 1_601, 2):
        peer.say(request(stream))
        if stream % 4 == 1:
            peer.connection.send_message(stream, b"b")
            peer.connection.finish(stream)
        else:
            peer.say(reset(stream))
    assert peer.error() is None


BEGUN_IN_VAIN = {
    "a stream that we are made to reset": lambda stream: request(stream) + window_update(stream, 0),
    "a malformed request": lambda stream: request(stream, ("connection", "close")),
    "DATA on a stream that has ended": lambda stream: request(stream) + reset(stream) + data(stream, b"a"),
    "a message after the end": lambda stream: request(stream, end=True) + data(stream, b"a"),
}


@pytest.mark.parametrize("say", BEGUN_IN_VAIN.values(), ids=BEGUN_IN_VAIN)
def test_made_you_reset(say: Callable[[int], bytes]) -> None:
    peer = Peer(TIGHT)
    times = flood(peer, lambda time: say(2 * time + 1), 1000)
    assert times <= TIGHT.resets
    assert peer.error() == CALM


def test_streams_over_the_limit_again_and_again() -> None:
    peer = Peer(WireLimits(streams=10, resets=200))
    flood(peer, lambda time: request(2 * time + 1), 1000)
    assert peer.error() == CALM


@pytest.mark.parametrize("piece", [b"", b"x", b"x" * 16_384])
def test_continuation_flood(piece: bytes) -> None:
    peer = Peer()
    with memory_below(1):
        peer.say(frame(Kind.HEADERS, 0, 1, block()))
        times = flood(peer, lambda _: frame(Kind.CONTINUATION, 0, 1, piece), 1000)
    assert times <= 16
    assert peer.error() == CALM


IDLE = {
    "PING": lambda _: PING,
    "PING acknowledged": lambda _: frame(Kind.PING, ACK, 0, b"12345678"),
    "SETTINGS": lambda _: settings(),
    "SETTINGS acknowledged": lambda _: frame(Kind.SETTINGS, ACK, 0),
    "PRIORITY": lambda time: raw(2, 0, 2 * time + 1, b"\0" * 5),
    "unknown kinds": lambda time: raw(99, 0, time),
    "GOAWAY": lambda _: raw(7, 0, 0, b"\0" * 8),
    "WINDOW_UPDATE of the connection": lambda _: window_update(0, 1),
    "WINDOW_UPDATE of a stream": lambda _: window_update(1, 1),
    "WINDOW_UPDATE of a stream that has ended": lambda _: window_update(3, 1),
    "RST_STREAM of a stream that has ended": lambda _: reset(3),
    "empty DATA": lambda _: frame(Kind.DATA, 0, 1),
    "a message byte by byte": lambda time: frame(Kind.DATA, 0, 1, b"\1" if time else b"\0"),
    "DATA that crosses our reset": lambda _: data(5, b"a"),
}


@pytest.mark.parametrize("say", IDLE.values(), ids=IDLE)
def test_floods_of_frames_that_bring_nothing_on(say: Callable[[int], bytes]) -> None:
    peer = Peer(TIGHT)
    peer.say(request(1), request(3), reset(3), request(5))
    peer.connection.reset(5)
    assert flood(peer, say, 1000) <= TIGHT.idle_frames
    assert peer.error() == CALM


@pytest.mark.parametrize("say", IDLE.values(), ids=IDLE)
def test_a_slow_trickle_of_them_is_borne(say: Callable[[int], bytes]) -> None:
    peer = Peer(TIGHT)
    peer.say(request(1), request(3), reset(3), request(5))
    peer.connection.reset(5)
    for time in range(1500):
        peer.now += 1 / TIGHT.idle_frames_per_s
        peer.say(say(time))
    assert peer.error() is None


def test_window_updates_of_a_peer_that_reads_are_no_flood() -> None:
    peer = Peer(TIGHT)
    peer.say(request(1))
    for _ in range(5000):
        peer.connection.send_message(1, b"x" * 200)
        peer.connection.data_to_send()
        peer.say(window_update(0, 205), window_update(1, 205))
    assert peer.error() is None


def test_small_messages_are_no_flood_however_they_are_framed() -> None:
    peer = Peer(TIGHT)
    prefix, rest = frame(Kind.DATA, 0, 1, grpc(b"abc")[:5]), frame(Kind.DATA, 0, 1, b"abc")
    peer.say(request(1))
    for _ in range(TIGHT.idle_frames - 10):
        peer.say(data(1, b""), frame(Kind.DATA, PADDED, 1, b"\1" + grpc(b"abc") + b"\0"), prefix, rest)
    assert peer.error() is None


def test_one_byte_windows_cost_no_more_than_idle_frames() -> None:
    peer = Peer(TIGHT)
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1))
    peer.connection.send_message(1, b"x" * 10_000)
    assert flood(peer, lambda _: window_update(1, 1), 2000) <= TIGHT.idle_frames
    assert peer.error() == CALM


def test_initial_windows_that_swing_over_many_streams_cost_by_the_stream() -> None:
    peer = Peer(TIGHT)
    peer.say(*(request(stream) for stream in range(1, 801, 2)))
    times = flood(peer, lambda time: settings((Setting.INITIAL_WINDOW_SIZE, time % 2)), 500)
    assert times < 30
    assert peer.error() == CALM


@pytest.mark.parametrize("settled", [b"", frame(Kind.SETTINGS, ACK, 0)])
def test_header_bomb(settled: bytes) -> None:
    """4 KB once into the table, then a byte for each 4 KB of headers."""
    bomb = b"\x40\x01a\x7f\x81\x1e" + b"x" * 3968 + b"\xbe" * 12_000
    peer = Peer(greeting=PREFACE + settings() + settled)
    with memory_below(1):
        peer.say(frame(Kind.HEADERS, END_HEADERS, 1, bomb))
    assert peer.error() in (CALM, Code.COMPRESSION_ERROR)


def test_a_list_too_large_is_refused_and_the_next_request_served() -> None:
    peer = Peer()
    peer.say(request(1, end=True))
    large = block((("x-large", "x" * 15_000), ("x-larger", "x" * 5_000)))
    peer.say(frame(Kind.HEADERS, 0, 3, large[:16_384]), raw(9, END_HEADERS, 3, large[16_384:]))
    assert peer.fields(peer.frames()[0])["grpc-status"] == "8"
    assert isinstance(peer.say(request(5))[0], StreamOpened)


def test_a_header_block_of_table_sizes() -> None:
    peer = Peer()
    peer.say(frame(Kind.HEADERS, END_HEADERS, 1, b"\x20" * 16_000))
    assert peer.error() == Code.COMPRESSION_ERROR


def test_a_peer_that_never_opens_its_window_loses_the_stream_and_its_bytes() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1), request(3))
    peer.connection.send_message(1, b"x" * 1000)
    peer.connection.send_message(3, b"y" * 1000)
    peer.say(window_update(3, 100_000))
    peer.frames()
    assert advance(peer, 70, PING) == [StreamEnded(1, Reason.STALLED)]
    assert [(each.stream, each.code) for each in peer.frames(Kind.RST_STREAM)] == [(1, Code.CANCEL)]
    assert (peer.connection.queued_total, peer.error()) == (0, None)


def test_a_peer_that_takes_a_little_now_and_then_is_borne() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1), data(1, b"a"))
    peer.connection.send_message(1, b"x" * 1000)
    for _ in range(20):
        assert advance(peer, 50, PING) + peer.say(window_update(1, 10)) == []


def test_what_waits_for_windows_is_bounded_and_the_longest_queue_is_given_up() -> None:
    peer = Peer(WireLimits(queued_bytes=1_000_000))
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)), request(1), request(3))
    peer.connection.send_message(1, b"small")
    with memory_below(4):
        for _ in range(100):
            peer.connection.send_message(3, b"x" * 100_000)
    assert peer.connection.deadline < peer.now
    assert peer.wait(0) == [StreamEnded(3, Reason.STALLED)]
    assert peer.connection.queued_bytes(1) == 10
    assert peer.error() is None


def test_slow_reader() -> None:
    """The windows are wide open, but the socket takes nothing: nobody calls `data_to_send`."""
    peer = Peer(WireLimits(queued_bytes=1_000_000))
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1)), window_update(0, 2**31 - 65_536), request(1))
    with memory_below(4):
        for _ in range(1000):
            peer.connection.send_message(1, b"x" * 10_000)
    assert peer.wait(0) == [StreamEnded(1, Reason.CONNECTION)]
    assert peer.connection.queued_total < 100
    assert peer.error() == CALM


def test_a_reader_that_has_stopped() -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"))
    peer.connection.send_message(1, b"b")
    for _ in range(20):
        peer.say(window_update(0, 1))
        peer.wait(4)
    assert peer.connection.closing
    assert peer.heard[-1] == StreamEnded(1, Reason.CONNECTION)


DANGLING = {
    "a stream without a message": b"",
    "half a prefix": frame(Kind.DATA, 0, 1, b"\0\0"),
    "half a message": frame(Kind.DATA, 0, 1, grpc(b"x" * 1000)[:500]),
}


@pytest.mark.parametrize("sent", DANGLING.values(), ids=DANGLING)
def test_dangling_streams_are_let_go(sent: bytes) -> None:
    peer = Peer()
    peer.say(request(1), sent)
    assert advance(peer, 70, PING) == [StreamEnded(1, Reason.STALLED)]


def test_a_stream_that_waits_between_messages_waits_for_ever() -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"))
    assert advance(peer, 3_600, PING) == []
    assert peer.say(data(1, b"b")) == [MessageReceived(1, b"b")]


HANGING = {
    "half a preface": (PREFACE[:10], CALM),
    "a preface alone": (PREFACE, Code.SETTINGS_TIMEOUT),
    "no acknowledgement of our SETTINGS": (PREFACE + settings() + request(1) + PING, Code.SETTINGS_TIMEOUT),
}


@pytest.mark.parametrize(("sent", "code"), HANGING.values(), ids=HANGING)
def test_connections_that_never_begin_are_closed(sent: bytes, code: Code) -> None:
    peer = Peer(greeting=b"")
    peer.say(sent)
    advance(peer, 70)
    assert peer.error() == code


@pytest.mark.parametrize("begun", [b"\0\0", frame(Kind.DATA, 0, 1, b"x" * 1000)[:500], frame(Kind.HEADERS, 0, 3, b"")])
def test_a_frame_or_header_block_has_to_be_completed(begun: bytes) -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"), begun)
    advance(peer, 70)
    assert peer.error() == CALM


def test_a_silent_peer_is_asked_and_then_left() -> None:
    peer = Peer()
    peer.say(request(1), data(1, b"a"))
    advance(peer, 61)
    assert [each.kind for each in peer.frames()] == [Kind.PING]
    assert advance(peer, 30) == [StreamEnded(1, Reason.CONNECTION)]
    assert peer.connection.closing


@pytest.mark.parametrize(
    ("sent", "watched"),
    [(data(1, b"a"), 61), (frame(Kind.DATA, 0, 1, b"\0"), 45)],
    ids=["asked by a PING", "in the middle of a message"],
)
def test_time_in_which_we_stood_still_is_not_the_peers_fault(sent: bytes, watched: int) -> None:
    peer = Peer()
    peer.say(request(1), sent)
    advance(peer, watched)
    assert peer.wait(3600) == []
    peer.say(frame(Kind.PING, ACK, 0, b"are you?"), frame(Kind.DATA, 0, 1, b"\0"))
    assert advance(peer, 30) == []
    assert peer.error() is None


def test_a_peer_that_answers_is_kept() -> None:
    peer = Peer()
    for _ in range(10):
        advance(peer, 66)
        (ping,) = peer.frames(Kind.PING)
        peer.say(frame(Kind.PING, ACK, 0, ping.payload))
    assert peer.error() is None


def test_a_message_in_one_byte_frames_is_no_more_memory_than_the_message() -> None:
    peer = Peer(WireLimits(idle_frames=10**9, message_bytes=10**6))
    peer.say(request(1), frame(Kind.DATA, 0, 1, grpc(b"x" * 10_000)[:5]))
    one = frame(Kind.DATA, 0, 1, b"x") * 100
    with memory_below(0.1):
        for _ in range(99):
            peer.say(one)


def test_messages_under_way_are_bounded_together() -> None:
    """A peer that sends without regard to the room it was given."""
    peer = Peer(WireLimits(assembling_bytes=200_000, stream_window=100_000, connection_window=10**6))
    piece = frame(Kind.DATA, 0, 1, grpc(b"x" * 60_000)[:10_000])
    with memory_below(2):
        for stream in range(1, 101, 2):
            peer.say(request(stream), piece[:5] + stream.to_bytes(4, "big") + piece[9:])
    refused = {event.stream for event in peer.heard if isinstance(event, StreamEnded)}
    assert len(refused) == 30
    assert peer.error() is None


def test_deadlines_of_streams_long_gone_are_forgotten() -> None:
    peer = Peer()
    opening = request(1, ("grpc-timeout", "99999999H"), end=True)
    with memory_below(0.5):
        for stream in range(1, 6_001, 2):
            peer.connection.receive(opening[:5] + stream.to_bytes(4, "big") + opening[9:], 0.0)
            peer.connection.finish(stream)
            peer.connection.data_to_send()


def test_header_blocks_that_never_come_again_are_forgotten() -> None:
    peer = Peer()
    requests = [
        frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, plain((*REQUEST, ("x-id", f"{stream:03900}"))))
        for stream in range(1, 1001, 2)
    ]
    with memory_below(3):
        for index, said in enumerate(requests):
            peer.connection.receive(said, 0.0)
            peer.connection.finish(2 * index + 1)
            peer.connection.data_to_send()


def test_a_held_stream_may_send_one_window_and_no_more() -> None:
    peer = Peer(WireLimits(stream_window=100_000))
    peer.say(request(1), data(1, b"a"))
    peer.connection.hold(1)
    for _ in range(9):
        assert peer.say(data(1, b"x" * 10_000)) != []
    assert peer.frames(Kind.WINDOW_UPDATE) == []
    peer.connection.release(1)
    (room,) = peer.frames(Kind.WINDOW_UPDATE)
    assert int.from_bytes(room.payload, "big") == 9 * 10_005 + 6
    peer.connection.hold(1)
    peer.say(*(data(1, b"x" * 10_000) for _ in range(10)))
    assert peer.heard[-1] == StreamEnded(1, Reason.REFUSED)
    assert peer.frames(Kind.RST_STREAM)[0].code == Code.FLOW_CONTROL_ERROR


def test_the_end_of_a_stream_frees_what_it_held() -> None:
    peer = Peer()
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    with memory_below(3):
        for stream in range(1, 201, 2):
            peer.say(request(stream), frame(Kind.DATA, 0, stream, grpc(b"x" * 20_000)[:16_384]))
            peer.connection.send_message(stream, b"y" * 100_000)
            peer.say(frame(Kind.DATA, END_STREAM, stream))
    peer.frames()
    assert peer.connection.queued_total == 0


def advance(peer: Peer, seconds: int, each_second: bytes = b"") -> list[StreamEnded]:
    """Lets a peer that reads wait, saying something at each second; which streams ended meanwhile."""
    before = len(peer.heard)
    for _ in range(seconds):
        peer.wait(1)
        if each_second:
            peer.say(each_second)
        peer.read()
    return [event for event in peer.heard[before:] if isinstance(event, StreamEnded)]
