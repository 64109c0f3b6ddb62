"""One ext_proc stream: the exchange's events turned into reads, picks and outcomes. No transport in here."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from picker.exchange import keys
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
from picker.exchange.failures import Failure, Refusal, bad_request, internal_error, no_endpoints
from picker.exchange.machine import Answer, Exchange
from picker.policies.policy import Saturated
from picker.requests.reader import Draft
from picker.requests.request import BadRequest, Request
from picker.requests.usage import UsageReader
from picker.routing.decisions import Decision
from picker.routing.outcome import BROKEN_STATUS, Fault, Outcome
from picker.routing.router import NoEndpoint
from picker.server.service import Service

log = structlog.get_logger(__name__)


class Conversation:
    """Message bytes in, reply bytes out, for the HTTP request that this stream is about.

    The shell calls `receive` for every message, writes the replies, and stops when `done`. When `slow` is set it runs
    `service.reader.finish(slow)` off the loop and hands the result (or the exception) to `resume`. It calls `close`
    once at the end, whatever happened.
    """

    __slots__ = (
        "_answering",
        "_body_bytes",
        "_decision",
        "_exchange",
        "_outcome",
        "_started",
        "_subset",
        "_usage",
        "service",
        "slow",
    )

    def __init__(self, service: Service) -> None:
        self.service = service
        self._exchange = Exchange(service.exchange_settings())
        self._started = service.clock()
        self._decision: Decision | None = None
        self._outcome = Outcome()
        self._usage: UsageReader | None = None
        self._subset: tuple[str, ...] | None = None
        self._body_bytes = 0
        self._answering = False
        self.slow: Draft | None = None

    @property
    def done(self) -> bool:
        """Nothing more will be said: the stream can be closed with OK."""
        return self._exchange.done

    def leave(self) -> bool:
        """Hand the rest back to the proxy if nothing is lost by it; then `done` is set."""
        return self._exchange.leave()

    def receive(self, message: bytes) -> list[bytes]:
        """Take one message; give the replies to write, in order."""
        exchange = self._exchange
        for event in exchange.receive(message):
            _TAKES[type(event)](self, event)
        return exchange.data_to_send()

    def relay(self, message: bytes) -> bytes | None:
        """The one reply to a chunk in the midst of an echoed answer; None for all else, which is to be received."""
        usage = self._usage
        if usage is None or (relayed := self._exchange.relay(message)) is None:
            return None
        usage.feed(relayed[0])
        return relayed[1]

    @property
    def steady(self) -> bool:
        """Whether chunks, after one that was relayed, change nothing, but for those with usage in them."""
        return self._usage is not None and self._usage.idle

    def resume(self, result: Request | Exception) -> list[bytes]:
        """The slow reading ended: go on with the pick."""
        self.slow = None
        if isinstance(result, Request):
            self._pick(result)
        else:
            self._fail(result)
        return self._exchange.data_to_send()

    def close(self) -> None:
        """The stream is over: release what it holds, unless the access log will tell the end."""
        for event in self._exchange.disconnected():
            _TAKES[type(event)](self, event)

    def _read(self, event: RequestArrived) -> None:
        self._subset = event.subset if self.service.honour_subset else None
        reader = self.service.reader
        self._body_bytes = len(event.body)
        try:
            draft = reader.parse(event.path, event.headers, event.body)
            if reader.is_slow(draft):
                self.slow = draft
                return
            request = reader.finish(draft)
        except Exception as error:
            # Whatever a hostile body provokes stays this request's own affair.
            self._fail(error)
            return
        self._pick(request)

    def _pick(self, request: Request) -> None:
        service = self.service
        began = service.clock()
        try:
            decision = service.router.pick(request, self._subset, began)
        except Exception as error:
            self._fail(error, request.model)
            return
        service.metrics.pick_s.observe(service.clock() - began)
        service.metrics.of(request).request_bytes.observe(self._body_bytes)
        self._decision = decision
        metadata = {keys.SCORES: _scores(decision)} if service.emit_scores else {}
        answer = Answer(decision.addresses, request.body, flight=str(decision.flight), metadata=metadata)
        if not self._exchange.answer(answer):
            service.finish(decision.flight, Outcome())

    def _fail(self, error: Exception, model: str = "") -> None:
        refusal = _refusal(error)
        if refusal.status >= 500 and not isinstance(error, NoEndpoint):
            log.error("request failed inside the picker", exc_info=error)
        self.service.metrics.refused(model, refusal.status)
        self._exchange.refuse(refusal)

    def _answer_began(self, event: ResponseStarted) -> None:
        self._answering = True
        self._outcome.status = event.status
        self._outcome.streamed = event.streaming
        if self._decision is None:
            return
        if event.served is not None:
            self.service.router.served(self._decision.flight, event.served, self.service.clock())
        self._decision.outcome.streamed = event.streaming
        self._decision.outcome.status = event.status

    def _answer_goes_on(self, event: ResponseData) -> None:
        if self._decision is None or not event.body:
            return
        if self._usage is None:
            self._usage = UsageReader()
            self._first_byte(self._decision)
        self._usage.feed(event.body)

    def _first_byte(self, decision: Decision) -> None:
        now = self.service.clock()
        # Said at once, not at the end: after a detach only the access log goes on, and this is the better figure.
        decision.outcome.ttft_s = self._outcome.ttft_s = now - self._started
        self.service.router.first_byte(decision.flight, now)

    def _refused(self, event: RequestRefused) -> None:
        self.service.metrics.refused("", event.refusal.status)

    def _puzzled(self, event: ProtocolError) -> None:
        self.service.metrics.protocol_errors.add()

    def _over(self, event: RequestEnded) -> None:
        decision, service = self._decision, self.service
        if decision is None:
            return
        if event.ending is Ending.DETACHED:
            service.await_log(decision.flight, answering=self._answering)
            return
        self._outcome.duration_s = service.clock() - self._started
        self._outcome.complete = event.complete
        # Where the answer's bytes come by, who broke it off is not told.
        self._outcome.fault = Fault.BROKEN if self._outcome.status in BROKEN_STATUS else None
        if self._usage is not None and (usage := self._usage.finish()) is not None:
            self._outcome.prompt_tokens = usage.prompt_tokens
            self._outcome.completion_tokens = usage.completion_tokens
            self._outcome.cached_tokens = usage.cached_tokens
        service.finish(decision.flight, self._outcome)


_TAKES: Mapping[type[Event], Callable[[Conversation, Any], None]] = {
    RequestArrived: Conversation._read,
    ResponseStarted: Conversation._answer_began,
    ResponseData: Conversation._answer_goes_on,
    RequestRefused: Conversation._refused,
    ProtocolError: Conversation._puzzled,
    RequestEnded: Conversation._over,
}


def _scores(decision: Decision) -> dict[str, float]:
    """By address, higher is better, as llm-d-router has them: a cost the other way round. Excluded ones have none."""
    costs = zip(decision.endpoints, decision.scores.cost.tolist(), strict=True)
    return {endpoint.address: -cost for endpoint, cost in costs if math.isfinite(cost)}


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, BadRequest):
        return bad_request(error.message, status=error.status, param=error.param, code=error.code)
    if isinstance(error, NoEndpoint):
        return no_endpoints(str(error))
    if isinstance(error, Saturated):
        return Refusal(Failure.SATURATED, message=str(error))
    return internal_error()
