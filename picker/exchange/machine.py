"""One HTTP request's conversation with Envoy, as a state machine without I/O.

    exchange = Exchange()
    for event in exchange.receive(message):       # bytes from the gRPC stream
        if isinstance(event, RequestArrived):
            exchange.answer(Answer(("10.0.0.1:8000",)))
    for reply in exchange.data_to_send():         # bytes for the gRPC stream, in order
        ...
    exchange.done                                 # True: return OK
    exchange.disconnected()                       # in the owner's `finally`

How each body mode is met (Envoy's names; "request side" first):

- FULL_DUPLEX_STREAMED: the header reply is held until the request is whole, then goes out first, followed by the body
  in chunks and the trailers. The chunks that came in are not the chunks that go out.
- BUFFERED: Envoy sends the body only after a header reply, so that one is empty and the pick rides on the body reply.
- NONE, STREAMED, BUFFERED_PARTIAL: the body cannot be held, or not be trusted to be whole; headers alone decide.

- response NONE: nothing but headers is seen. STREAMED, BUFFERED: an empty reply per message lets the bytes pass as they
  are. FULL_DUPLEX_STREAMED: every byte is sent back.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from picker.exchange import decode, encode, keys
from picker.exchange.decode import BodyMode
from picker.exchange.encode import Json
from picker.exchange.events import (
    Ending,
    Event,
    ProtocolError,
    RequestArrived,
    RequestEnded,
    RequestRefused,
    ResponseData,
    ResponseStarted,
)
from picker.exchange.failures import Failure, Refusal, internal_error
from picker.exchange.selection import narrowed, selected
from picker.exchange.states import ENDINGS, TRANSITIONS, Input, State
from picker.proto.ext_proc_pb2 import HttpBody, ProcessingRequest

NOBODY_SERVED = "fail: the proxy does not say who served"
"""Value of the served header where nothing is known, so that a conformance suite does not pass by silence."""
_HELD = (BodyMode.BUFFERED, BodyMode.FULL_DUPLEX_STREAMED)


def random_request_id() -> str:
    """A request id for a request that came without one."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What an owner decides for all of its exchanges.

    `max_body_bytes`: a longer request body is refused with 413. `detach`: let a STREAMED answer go after its first
    chunk. `clear_route_cache`: have Envoy choose the route again, headers having changed. `request_body` and
    `response_body`: the modes to assume of a proxy that does not announce them. For conformance suites,
    `selection_header` names a request header that restricts the pick, `served_header` one that tells who answered.
    `answer_header` makes a header of the answer from who serves it.
    """

    max_body_bytes: int = 32 << 20
    detach: bool = False
    clear_route_cache: bool = True
    request_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    response_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    selection_header: str | None = None
    served_header: str | None = None
    answer_header: Callable[[str], tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The pick: `ip:port` of each destination, best first, the rest in the order in which to fall back.

    `body` replaces the client's bytes, None leaves them alone. `headers` are set on the request. `flight` names this
    pick in the access log. `metadata` goes beside the destination in the load balancer's namespace.
    """

    destinations: tuple[str, ...]
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    flight: str = ""
    metadata: Mapping[str, Json] = field(default_factory=dict)


class Exchange:
    """One ext_proc stream. `done` is true once nothing more will be said and the stream may be closed with OK."""

    def __init__(
        self, settings: ExchangeSettings = ExchangeSettings(), new_id: Callable[[], str] = random_request_id
    ) -> None:
        self.state = State.IDLE
        self.done = False
        self._settings = settings
        self._new_id = new_id
        self._replies: list[bytes] = []
        self._ending: Ending | None = None
        self._told = False
        self._modes_known = False
        self._request_mode = settings.request_body
        self._response_mode = settings.response_body
        self._arrived = RequestArrived(headers={}, method="", path="", request_id="")
        self._body = bytearray()
        self._mutation = b""
        self._declares_length = False
        self._trailers_held = False
        self._held_replies: list[bytes] = []
        self._picked = ""

    # ------------------------------------------------------------------ the owner's side

    def receive(self, message: bytes) -> list[Event]:
        """Take one serialised ProcessingRequest. Never raises, whatever the bytes are."""
        if self.state is State.CLOSED:
            return []
        heard = decode.message(message)
        if heard is None:
            return self._broken("a message that cannot be decoded")
        if not self._modes_known:
            self._learn_modes(heard)
        match heard.WhichOneof("request"):
            case "request_headers":
                return self._request_headers(heard)
            case "request_body":
                return self._request_body(heard.request_body)
            case "request_trailers":
                return self._request_trailers()
            case "response_headers":
                return self._response_headers(heard)
            case "response_body":
                return self._response_body(heard.response_body)
            case "response_trailers":
                return self._response_trailers()
            case _:
                return [ProtocolError("a message without a part that is known here")]

    def answer(self, answer: Answer) -> bool:
        """Send the request to `answer.destinations` (at least one).

        False, and no effect, where no pick is wanted any more: the request ended meanwhile."""
        if not self._step(Input.ANSWER):
            return False
        self._picked = answer.destinations[0]
        mutation = encode.pick_header(answer.destinations) + self._mutation
        if answer.headers:
            mutation += b"".join([encode.set_header(name, value) for name, value in answer.headers])
        if answer.body is not None and (self._declares_length or self._request_mode is BodyMode.BUFFERED):
            mutation += encode.set_header("content-length", str(len(answer.body)))
        metadata = encode.pick_metadata(answer.destinations, answer.flight, answer.metadata)
        self._forward(mutation, metadata, answer.body)
        self._body = bytearray()
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Answer the client ourselves, now; in a running answer this cuts it off. No effect once all is over."""
        if self.state is not State.CLOSED:
            self._replies.append(encode.immediate(refusal))
            self._end(Input.REFUSE)

    def leave(self) -> bool:
        """Hand the rest of a request that has its pick back to Envoy, if that loses nothing: then `done` is set.

        A full duplex answer cannot be left: bytes that Envoy has sent and not got back would be lost."""
        if not self.echoing and self.state in (State.FORWARDED, State.ANSWERING):
            self._end(Input.LET_GO)
        return self.done

    @property
    def echoing(self) -> bool:
        """The answer's bytes come to us and go back: closing before its end would lose some of them."""
        return self._response_mode is BodyMode.FULL_DUPLEX_STREAMED

    def disconnected(self) -> list[Event]:
        """The stream is over, for whatever reason. Tells the ending if it was not told yet."""
        if self.state is not State.CLOSED:
            self._end(Input.GONE)
        return self._farewell()

    def data_to_send(self) -> list[bytes]:
        """The serialised ProcessingResponses due since the last call, in order."""
        due, self._replies = self._replies, []
        return due

    # ------------------------------------------------------------------ the request

    def _request_headers(self, heard: ProcessingRequest) -> list[Event]:
        part = heard.request_headers
        held = not part.end_of_stream and self._request_mode in _HELD
        if not self._step(Input.REQUEST_OPENED if held else Input.REQUEST_BODILESS):
            return self._broken("request headers twice")
        headers = decode.headers(part.headers)
        stripped = [name for name in headers if name in keys.STEERING]
        for name in stripped:
            del headers[name]
            # The pick overwrites this one.
            if name != keys.DESTINATION:
                self._mutation += encode.remove_header(name)
        request_id = headers.get(keys.REQUEST_ID)
        if not request_id:
            request_id = headers[keys.REQUEST_ID] = self._new_id()
            self._mutation += encode.set_header(keys.REQUEST_ID, request_id)
        self._declares_length = "content-length" in headers
        self._arrived = RequestArrived(
            headers={name: value for name, value in headers.items() if name[:1] != ":"},
            method=headers.get(":method", ""),
            path=headers.get(":path", ""),
            request_id=request_id,
            has_body=not part.end_of_stream,
            subset=self._subset(heard, headers),
        )
        if not held:
            return [self._arrived]
        if self._too_large(headers.get("content-length", "")):
            return self._refuse_body()
        if self._request_mode is BodyMode.BUFFERED:
            self._replies.append(encode.go_on(encode.REQUEST_HEADERS))
        return []

    def _subset(self, heard: ProcessingRequest, headers: Mapping[str, str]) -> tuple[str, ...] | None:
        hint, header = decode.subset(heard.metadata_context), self._settings.selection_header
        return hint if header is None else narrowed(hint, selected(headers.get(header, "")))

    def _request_body(self, part: HttpBody) -> list[Event]:
        if self._request_mode not in _HELD:
            return self._request_rest(encode.go_on(encode.REQUEST_BODY))
        if self.state is State.ANSWERING and self._step(Input.REQUEST_REST):
            return []
        whole = part.end_of_stream or self._request_mode is BodyMode.BUFFERED
        if not self._step(Input.REQUEST_WHOLE if whole else Input.REQUEST_CHUNK):
            return self._broken("a request body out of order")
        self._body += part.body
        if len(self._body) > self._settings.max_body_bytes:
            return self._refuse_body()
        return [self._whole()] if whole else []

    def _request_trailers(self) -> list[Event]:
        reply = encode.trailers(encode.REQUEST_TRAILERS)
        if self.state is State.READING and self._request_mode is BodyMode.FULL_DUPLEX_STREAMED:
            self._step(Input.REQUEST_WHOLE)
            self._trailers_held = True
            return [self._whole()]
        return self._request_rest(reply)

    def _request_rest(self, reply: bytes) -> list[Event]:
        """What follows a request whose pick did not wait for it."""
        if not self._step(Input.REQUEST_REST):
            return self._broken("a part of the request out of order")
        # No reply may overtake the header reply, which is still owed while the pick is made.
        (self._held_replies if self.state is State.ASKING else self._replies).append(reply)
        return []

    def _whole(self) -> RequestArrived:
        return replace(self._arrived, body=bytes(self._body))

    def _forward(self, mutation: bytes, metadata: bytes, body: bytes | None) -> None:
        """Queue all that the request side is owed, the pick on the first reply that may carry it."""
        clear = self._settings.clear_route_cache
        held_body = self._arrived.has_body and self._request_mode in _HELD
        if held_body and self._request_mode is BodyMode.BUFFERED:
            changed = b"" if body is None else encode.whole_body(body)
            reply = encode.go_on(encode.REQUEST_BODY, mutation=mutation, body=changed, clear_route=clear, more=metadata)
            self._replies.append(reply)
            return
        self._replies.append(encode.go_on(encode.REQUEST_HEADERS, mutation=mutation, clear_route=clear, more=metadata))
        if held_body:
            out = bytes(self._body) if body is None else body
            self._replies += encode.streamed(encode.REQUEST_BODY, out, end=not self._trailers_held)
        if self._trailers_held:
            self._replies.append(encode.trailers(encode.REQUEST_TRAILERS))
        self._replies += self._held_replies
        self._held_replies = []

    def _too_large(self, content_length: str) -> bool:
        digits = content_length[:19]
        return digits.isascii() and digits.isdigit() and int(digits) > self._settings.max_body_bytes

    def _refuse_body(self) -> list[Event]:
        limit = self._settings.max_body_bytes
        refusal = Refusal(Failure.BODY_TOO_LARGE, message=f"The request body is larger than {limit} bytes.")
        self.refuse(refusal)
        return [RequestRefused(refusal), *self._farewell()]

    # ------------------------------------------------------------------ the response

    def _response_headers(self, heard: ProcessingRequest) -> list[Event]:
        part = heard.response_headers
        if not self._step(Input.RESPONSE_BODILESS if part.end_of_stream else Input.RESPONSE_OPENED):
            return self._broken("response headers twice")
        headers = decode.headers(part.headers)
        status = headers.get(":status", "")
        content_type = headers.get("content-type", "")
        started = ResponseStarted(
            status=int(status) if status.isascii() and status.isdecimal() and len(status) == 3 else 0,
            served=decode.served(heard),
            content_type=content_type,
            streaming=content_type.lower().startswith("text/event-stream"),
        )
        mutation = b""
        if self._settings.served_header:
            mutation = encode.set_header(self._settings.served_header, started.served or NOBODY_SERVED)
        if self._settings.answer_header and (serving := started.served or self._picked):
            mutation += encode.set_header(*self._settings.answer_header(serving))
        self._replies.append(encode.go_on(encode.RESPONSE_HEADERS, mutation=mutation))
        self._body = bytearray()
        return [started, *self._farewell()]

    def _response_body(self, part: HttpBody) -> list[Event]:
        if not self._step(Input.RESPONSE_WHOLE if part.end_of_stream else Input.RESPONSE_CHUNK):
            return self._broken("a response body out of order")
        if self._response_mode is BodyMode.FULL_DUPLEX_STREAMED:
            self._replies += encode.streamed(encode.RESPONSE_BODY, part.body, part.end_of_stream)
        else:
            self._replies.append(encode.go_on(encode.RESPONSE_BODY))
            if self._settings.detach and self._response_mode is BodyMode.STREAMED and part.body:
                self.leave()
        return [ResponseData(part.body, part.end_of_stream), *self._farewell()]

    def _response_trailers(self) -> list[Event]:
        if not self._step(Input.RESPONSE_WHOLE):
            return self._broken("response trailers out of order")
        self._replies.append(encode.trailers(encode.RESPONSE_TRAILERS))
        return self._farewell()

    # ------------------------------------------------------------------ steps and endings

    def _step(self, name: Input) -> bool:
        """Take one step of the table; False, and no change, where it has none."""
        target = TRANSITIONS[self.state].get(name)
        if target is None:
            return False
        if target is State.CLOSED:
            self._end(name)
        self.state = target
        return True

    def _end(self, name: Input) -> None:
        self._ending = ENDINGS[name]
        # Where no body is shown, a stream that closes after the pick says nothing about the answer.
        unseen = self._response_mode is BodyMode.NONE and self.state in (State.FORWARDED, State.ANSWERING)
        if name is Input.GONE and unseen:
            self._ending = Ending.DETACHED
        self.state = TRANSITIONS[self.state][name]
        self.done = True
        self._body = bytearray()

    def _farewell(self) -> list[Event]:
        if self._ending is None or self._told:
            return []
        self._told = True
        return [RequestEnded(self._ending)]

    def _broken(self, reason: str) -> list[Event]:
        """The stream makes no sense. A pick not yet made is refused and an echoed answer is cut off, visibly; any other
        answer is let go and reaches its client whole."""
        if not self.leave():
            self.refuse(internal_error())
        return [ProtocolError(reason), *self._farewell()]

    def _learn_modes(self, heard: ProcessingRequest) -> None:
        self._modes_known = True
        if heard.HasField("protocol_config"):
            config = heard.protocol_config
            self._request_mode = decode.body_mode(config.request_body_mode, self._settings.request_body)
            self._response_mode = decode.body_mode(config.response_body_mode, self._settings.response_body)
