"""Chunks that the connection answers by itself: their client, the log and the metrics know no difference."""

import itertools
import json
from dataclasses import dataclass

import pytest
from ext_proc_messages import (
    FDS,
    SSE,
    add_metadata,
    request_body,
    request_headers,
    response_body,
    response_headers,
    streamed_body,
)
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from small_service import CHAT, POST, Clock, make_service
from test_lean import Socket
from wire_peer import REQUEST, data, grpc, request, window_update
from wire_peer import settings as announced

from picker.exchange.relay import relayed
from picker.proto.ext_proc_pb2 import HttpBody
from picker.proto.ext_proc_pb2 import ProcessingRequest as Said
from picker.proto.ext_proc_pb2 import ProcessingResponse as Reply
from picker.routing.outcome import Outcome
from picker.server.health import Health
from picker.server.lean import Answer, Call, Line, Shell
from picker.server.lean_calls import ECHOED, PROCESS, answers
from picker.server.pools import Pools
from picker.server.streams import AccessLogs, Streams
from picker.server.transport import Ears
from picker.wire.connection import Connection
from picker.wire.echo import Echo
from picker.wire.events import MessageReceived
from picker.wire.frames import ACK, PREFACE, Kind, frame
from picker.wire.limits import WireLimits

ECHO = Echo(ECHOED)
USAGE = b'{"prompt_tokens": 120, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}'
GREETING = PREFACE + announced((4, 10**6)) + frame(Kind.SETTINGS, ACK, 0) + window_update(0, 10**6)
ASKED = tuple((name, PROCESS if name == ":path" else value) for name, value in REQUEST)


@dataclass
class Counted:
    """A call of a picker that counts what it hears."""

    picker: "Picker"
    call: Call

    def message(self, data: bytes) -> None:
        self.picker.heard += 1
        self.call.message(data)

    def half_closed(self) -> None:
        self.call.half_closed()

    def close(self, code: str) -> None:
        self.call.close(code)


class Picker:
    """One connection of a real service; `heard` counts the messages that its calls heard."""

    limits, longest = WireLimits(), 1 << 20

    def __init__(self, echo: Echo | None) -> None:
        self.echo, self.heard = echo, 0
        self.service = make_service(Clock())
        pools = Pools({"": self.service})
        self._found = answers(Health(), Ears(Streams(pools), AccessLogs(pools), ""))
        self.answer: Answer = self._answer
        self.shell, self.socket = Shell(self), Socket()
        self.shell.connection_made(self.socket)
        self.say(GREETING)

    def _answer(self, line: Line, path: str, metadata: object) -> Call:
        call = self._found(line, path, [])
        assert call is not None
        return Counted(self, call)

    def came(self, shell: Shell) -> None: ...
    def went(self, shell: Shell) -> None: ...

    def say(self, *data: bytes) -> None:
        self.shell.data_received(b"".join(data))

    def begin(self, stream: int) -> None:
        self.say(
            request(stream, fields=ASKED),
            data(stream, request_headers(POST, request=FDS, response=FDS)),
            data(stream, request_body(CHAT, end=True)),
            data(stream, response_headers(SSE)),
        )

    @property
    def answered(self) -> bytes:
        """The answer's bytes, as they went back."""
        frames = b"".join(each.payload for each in self.socket.frames(Kind.DATA))
        replies = []
        while frames:
            size = int.from_bytes(frames[1:5], "big")
            replies.append(Reply.FromString(frames[5 : 5 + size]))
            frames = frames[5 + size :]
        return streamed_body(replies, "response_body")

    @property
    def outcome(self) -> Outcome:
        (decision,) = self.service.router.log.last(1)
        return decision.outcome


def events(*more: bytes) -> bytes:
    chunk = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\"usage\\":{"}}],"usage":null}\n\n'
    return b"".join((chunk * 3, *more, chunk, b'data: {"choices":[],"usage":' + USAGE + b"}\n\ndata: [DONE]\n\n"))


@pytest.mark.asyncio
async def test_chunks_of_an_answer_go_back_unheard_and_its_usage_is_read() -> None:
    picker, chunk = Picker(ECHO), b'data: {"choices":[{"delta":{"content":" tok"}}]}\n\n'
    picker.begin(1)
    for piece in (*[chunk] * 50, events()):
        picker.say(data(1, response_body(piece)))
    picker.say(data(1, response_body(b"", end=True)))
    assert picker.answered == chunk * 50 + events()
    assert (picker.outcome.completion_tokens, picker.outcome.cached_tokens) == (3, 64)
    # Headers, body and the answer's headers; the first chunk, which tells the time, and the second; usage, and the end.
    assert picker.heard == 7


cuts = st.lists(st.integers(0, 700), max_size=40)


@given(cuts, cuts, st.sampled_from([b"", b'data: {"usage":' + USAGE + b"}\n\n", b'"usage" : null', b'"usage"']))
@example(list(range(0, 700, 4)), list(range(0, 700, 7)), b"")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.asyncio
async def test_wherever_chunks_and_reads_are_cut_nobody_sees_a_difference(
    chunks: list[int], reads: list[int], more: bytes
) -> None:
    body = events(more)
    edges = sorted({0, *chunks, len(body)})
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    said = b"".join(data(1, response_body(piece)) for piece in pieces) + data(1, response_body(b"", end=True))
    heard = []
    for echo in (ECHO, None):
        picker = Picker(echo)
        picker.begin(1)
        for start, end in itertools.pairwise([0, *sorted(reads), len(said)]):
            picker.say(said[start:end])
        heard.append((picker.answered, picker.outcome))
    assert heard[0] == heard[1]
    assert heard[0][0] == body


sizes = st.one_of(st.integers(0, 300), st.integers(16_340, 16_379))


@given(
    sizes,
    st.sampled_from([b"", b"\x42\x00"]) | st.integers(0, 300),
    st.integers(0, 12),
    st.none() | st.integers(0, 255),
)
def test_the_connection_answers_what_is_relayed_and_says_the_same(
    size: int, behind: bytes | int, place: int, damage: int | None
) -> None:
    if isinstance(behind, int):
        said = Said()
        add_metadata(said, {"envoy.lb": {"k": "v" * behind}})
        behind = said.SerializeToString()
    message = bytearray(Said(response_body=HttpBody(body=b"c" * size)).SerializeToString() + behind)
    if damage is not None:
        message[place : place + 1] = bytes([damage])
    assume(len(grpc(bytes(message))) <= 16_384)
    connection = Connection(WireLimits(), 0.0, ECHO)
    connection.receive(GREETING + request(1), 0.0)
    connection.send_message(1, b"first")
    connection.data_to_send()
    connection.echo(1)
    (heard,) = connection.receive(data(1, bytes(message)), 0.0) or (None,)
    known = relayed(bytes(message))
    if heard is None:
        assert known is not None
        assert connection.data_to_send().endswith(grpc(known[1]))
    else:
        assert heard == MessageReceived(1, bytes(message))
        # A reply that needs two frames, or may hold the word, is the owner's to give.
        assert known is None or len(grpc(known[1])) > 16_384 or b'"' in known[0]


def test_the_word_that_chunks_are_searched_for_is_where_usage_is_told() -> None:
    assert json.loads(b"{%b%b}" % (ECHOED.word, ECHOED.harmless)) == {"usage": None}
