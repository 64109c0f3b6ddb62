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
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from picker.exchange import decode, encode, keys, states
from picker.exchange.decode import BODY_MODES, BodyMode, Heard
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
from picker.exchange.relay import relayed
from picker.exchange.selection import narrowed, selected
from picker.exchange.states import ENDINGS, TRANSITIONS, Input

NOBODY_SERVED = "fail: the proxy does not say who served"
"""Value of the served header where nothing is known, so that a conformance suite does not pass by silence."""
_NONE, _STREAMED, _BUFFERED, _, _DUPLEX = BodyMode
_HELD = (_BUFFERED, _DUPLEX)
_PSEUDO = (":authority", ":scheme", ":protocol")
"""Beside method and path: what a request says of itself in the form of a header (RFC 9113 section 8.3.1)."""
_NOTHING_YET = RequestArrived(headers={}, method="", path="", request_id="")


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


class Answer(Struct, frozen=True, gc=False):
    """The pick: `ip:port` of each destination, best first, the rest in the order in which to fall back.

    `body` replaces the client's bytes, None leaves them alone. `headers` are set on the request. `flight` names this
    pick in the access log. `metadata` goes beside the destination in the load balancer's namespace.
    """

    destinations: tuple[str, ...]
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    flight: str = ""
    metadata: Mapping[str, Json] = {}


class Exchange:
    """One ext_proc stream. `done` is true once nothing more will be said and the stream may be closed with OK."""

    def __init__(
        self, settings: ExchangeSettings = ExchangeSettings(), new_id: Callable[[], str] = random_request_id
    ) -> None:
        self.state = states.IDLE
        self.done = False
        self._settings = settings
        self._new_id = new_id
        self._replies: list[bytes] = []
        self._ending: Ending | None = None
        self._told = False
        self._modes_known = False
        self._request_mode = settings.request_body
        self._response_mode = settings.response_body
        self._arrived = _NOTHING_YET
        self._pieces: list[bytes] = []
        self._size = 0
        self._mutation = b""
        self._declares_length = False
        self._trailers_held = False
        self._held_replies: list[bytes] = []
        self._picked = ""

    # ------------------------------------------------------------------ the owner's side

    def receive(self, message: bytes) -> list[Event]:
        """Take one serialised ProcessingRequest. Never raises, whatever the bytes are."""
        if self.done:
            return []
        heard = decode.message(message)
        if heard is None:
            return self._broken("a message that cannot be decoded")
        if not self._modes_known:
            self._learn_modes(heard)
        take = _TAKES.get(heard.part)
        return [ProtocolError("a message without a part that is known here")] if take is None else take(self, heard)

    def relay(self, message: bytes) -> tuple[bytes, bytes] | None:
        """The bytes and the reply, if this is a chunk in the midst of an echoed answer; else None, and no effect.

        What `receive` says of one and `data_to_send` gives, without the way through events: no state changes by it.
        """
        return relayed(message) if self.state is states.ANSWERING and self._response_mode is _DUPLEX else None

    def answer(self, answer: Answer) -> bool:
        """Send the request to `answer.destinations` (at least one).

        False, and no effect, where no pick is wanted any more: the request ended meanwhile."""
        if not self._step(states.ANSWER):
            return False
        self._picked = answer.destinations[0]
        named, metadata = encode.pick(answer.destinations, answer.flight, answer.metadata)
        mutation = named + self._mutation
        if answer.headers:
            mutation += b"".join([encode.set_header(name, value) for name, value in answer.headers])
        if answer.body is not None and (self._declares_length or self._request_mode is _BUFFERED):
            mutation += encode.set_header("content-length", str(len(answer.body)))
        self._forward(mutation, metadata, answer.body)
        self._arrived = _NOTHING_YET
        return True

    def refuse(self, refusal: Refusal) -> None:
        """Answer the client ourselves, now; in a running answer this cuts it off. No effect once all is over."""
        if not self.done:
            self._replies.append(encode.immediate(refusal))
            self._end(states.REFUSE)

    def leave(self) -> bool:
        """Hand the rest of a request that has its pick back to Envoy, if that loses nothing: then `done` is set.

        A full duplex answer cannot be left: bytes that Envoy has sent and not got back would be lost."""
        if not self.echoing and self.state in (states.FORWARDED, states.ANSWERING):
            self._end(states.LET_GO)
        return self.done

    @property
    def echoing(self) -> bool:
        """The answer's bytes come to us and go back: closing before its end would lose some of them."""
        return self._response_mode is _DUPLEX

    def disconnected(self) -> list[Event]:
        """The stream is over, for whatever reason. Tells the ending if it was not told yet."""
        if not self.done:
            self._end(states.GONE)
        return self._farewell()

    def data_to_send(self) -> list[bytes]:
        """The serialised ProcessingResponses due since the last call, in order."""
        due, self._replies = self._replies, []
        return due

    # ------------------------------------------------------------------ the request

    def _request_headers(self, heard: Heard) -> list[Event]:
        held = not heard.end and self._request_mode in _HELD
        if not self._step(states.REQUEST_OPENED if held else states.REQUEST_BODILESS):
            return self._broken("request headers twice")
        headers = heard.headers
        if not keys.STEERING.isdisjoint(headers):
            self._strip(headers)
        request_id = headers.get(keys.REQUEST_ID)
        if not request_id:
            request_id = headers[keys.REQUEST_ID] = self._new_id()
            self._mutation += encode.set_header(keys.REQUEST_ID, request_id)
        method, path = headers.pop(":method", ""), headers.pop(":path", "")
        for name in _PSEUDO:
            headers.pop(name, None)
        length = headers.get("content-length")
        self._declares_length = length is not None
        subset = heard.subset
        if self._settings.selection_header is not None:
            subset = narrowed(subset, selected(headers.get(self._settings.selection_header, "")))
        self._arrived = RequestArrived(headers, method, path, request_id, has_body=not heard.end, subset=subset)
        if not held:
            return [self._arrived]
        if length is not None and self._too_large(length):
            return self._refuse_body()
        if self._request_mode is _BUFFERED:
            self._replies.append(encode.go_on(encode.REQUEST_HEADERS))
        return []

    def _strip(self, headers: dict[str, str]) -> None:
        """Take out what is not the client's to say."""
        for name in [name for name in headers if name in keys.STEERING]:
            del headers[name]
            # The pick overwrites this one.
            if name != keys.DESTINATION:
                self._mutation += encode.remove_header(name)

    def _request_body(self, heard: Heard) -> list[Event]:
        if self._request_mode not in _HELD:
            return self._request_rest(encode.go_on(encode.REQUEST_BODY))
        if self.state is states.ANSWERING and self._step(states.REQUEST_REST):
            return []
        whole = heard.end or self._request_mode is _BUFFERED
        if not self._step(states.REQUEST_WHOLE if whole else states.REQUEST_CHUNK):
            return self._broken("a request body out of order")
        if heard.body:
            self._pieces.append(heard.body)
            self._size += len(heard.body)
            if self._size > self._settings.max_body_bytes:
                return self._refuse_body()
        return [self._whole()] if whole else []

    def _request_trailers(self, heard: Heard) -> list[Event]:
        if self.state is states.READING and self._request_mode is _DUPLEX:
            self._step(states.REQUEST_WHOLE)
            self._trailers_held = True
            return [self._whole()]
        return self._request_rest(encode.trailers(encode.REQUEST_TRAILERS))

    def _request_rest(self, reply: bytes) -> list[Event]:
        """What follows a request whose pick did not wait for it."""
        if not self._step(states.REQUEST_REST):
            return self._broken("a part of the request out of order")
        # No reply may overtake the header reply, which is still owed while the pick is made.
        (self._held_replies if self.state is states.ASKING else self._replies).append(reply)
        return []

    def _whole(self) -> RequestArrived:
        body, self._pieces = b"".join(self._pieces), []
        self._arrived = msgspec.structs.replace(self._arrived, body=body)
        return self._arrived

    def _forward(self, mutation: bytes, metadata: bytes, body: bytes | None) -> None:
        """Queue all that the request side is owed, the pick on the first reply that may carry it."""
        clear = self._settings.clear_route_cache
        held_body = self._arrived.has_body and self._request_mode in _HELD
        if held_body and self._request_mode is _BUFFERED:
            changed = b"" if body is None else encode.whole_body(body)
            reply = encode.go_on(encode.REQUEST_BODY, mutation=mutation, body=changed, clear_route=clear, more=metadata)
            self._replies.append(reply)
            return
        self._replies.append(encode.go_on(encode.REQUEST_HEADERS, mutation=mutation, clear_route=clear, more=metadata))
        if held_body:
            out = self._arrived.body if body is None else body
            self._replies += encode.streamed(encode.REQUEST_BODY, out, end=not self._trailers_held)
        if self._trailers_held:
            self._replies.append(encode.trailers(encode.REQUEST_TRAILERS))
        if self._held_replies:
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

    def _response_headers(self, heard: Heard) -> list[Event]:
        if not self._step(states.RESPONSE_BODILESS if heard.end else states.RESPONSE_OPENED):
            return self._broken("response headers twice")
        status = heard.headers.get(":status", "")
        content_type = heard.headers.get("content-type", "")
        started = ResponseStarted(
            int(status) if status.isascii() and status.isdecimal() and len(status) == 3 else 0,
            heard.served,
            content_type,
            content_type[:17].lower() == "text/event-stream",
        )
        mutation = b""
        if self._settings.served_header:
            mutation = encode.set_header(self._settings.served_header, started.served or NOBODY_SERVED)
        if self._settings.answer_header and (serving := started.served or self._picked):
            mutation += encode.set_header(*self._settings.answer_header(serving))
        self._replies.append(encode.go_on(encode.RESPONSE_HEADERS, mutation=mutation))
        self._pieces = []
        return [started, *self._farewell()]

    def _response_body(self, heard: Heard) -> list[Event]:
        body, end = heard.body, heard.end
        if not self._step(states.RESPONSE_WHOLE if end else states.RESPONSE_CHUNK):
            return self._broken("a response body out of order")
        if self._response_mode is _DUPLEX:
            self._replies += encode.streamed(encode.RESPONSE_BODY, body, end)
        else:
            self._replies.append(encode.go_on(encode.RESPONSE_BODY))
            if self._settings.detach and self._response_mode is _STREAMED and body:
                self.leave()
        data = ResponseData(body, end)
        return [data, *self._farewell()] if self.done else [data]

    def _response_trailers(self, heard: Heard) -> list[Event]:
        if not self._step(states.RESPONSE_WHOLE):
            return self._broken("response trailers out of order")
        self._replies.append(encode.trailers(encode.RESPONSE_TRAILERS))
        return self._farewell()

    # ------------------------------------------------------------------ steps and endings

    def _step(self, name: Input) -> bool:
        """Take one step of the table; False, and no change, where it has none."""
        target = TRANSITIONS[self.state].get(name)
        if target is None:
            return False
        if target is states.CLOSED:
            self._end(name)
        self.state = target
        return True

    def _end(self, name: Input) -> None:
        self._ending = ENDINGS[name]
        # Where no body is shown, a stream that closes after the pick says nothing about the answer.
        unseen = self._response_mode is _NONE and self.state in (states.FORWARDED, states.ANSWERING)
        if name is states.GONE and unseen:
            self._ending = Ending.DETACHED
        self.state = TRANSITIONS[self.state][name]
        self.done = True
        self._pieces = []

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

    def _learn_modes(self, heard: Heard) -> None:
        self._modes_known = True
        if heard.modes is not None:
            request, response = heard.modes
            self._request_mode = BODY_MODES.get(request, self._settings.request_body)
            self._response_mode = BODY_MODES.get(response, self._settings.response_body)


_TAKES: Mapping[str, Callable[[Exchange, Heard], list[Event]]] = {
    "request_headers": Exchange._request_headers,
    "request_body": Exchange._request_body,
    "request_trailers": Exchange._request_trailers,
    "response_headers": Exchange._response_headers,
    "response_body": Exchange._response_body,
    "response_trailers": Exchange._response_trailers,
}
