"""What is heard of an answer, said for or against the endpoints that had the request."""

from picker.pool.view import Pool
from picker.requests.request import Api, Request
from picker.routing.decisions import Decision
from picker.routing.failing import Failing
from picker.routing.outcome import Fault


class Verdicts:
    """Tells `failing`, by slot, what the proxy tells by address. Addresses that are not in the pool say nothing.

    Nor does an answer that the model had no part in: who lists its models may be unable to run one.
    """

    def __init__(self, pool: Pool, failing: Failing) -> None:
        self._pool, self._failing = pool, failing

    def slot(self, address: str) -> int | None:
        """Of the endpoint that is at this address now, if there is one."""
        view = self._pool.view
        position = view.by_address.get(address)
        return None if position is None else int(view.slots[position])

    def passed_over(self, decision: Decision, now: float) -> None:
        """Another endpoint serves than the one picked."""
        for address in decision.passed_over():
            self._against(decision, address, Fault.UNREACHED, now)

    def began(self, decision: Decision) -> None:
        """The answer's body began, with status 200."""
        if _asks_the_model(decision.request):
            slot = self.slot(decision.outcome.served or decision.addresses[0])
            if slot is not None:
                self._failing.succeeded(slot, decision.at)

    def ended(self, decision: Decision, now: float) -> None:
        """The outcome is all that will be heard."""
        facts = decision.outcome
        if facts.fault is Fault.UNREACHED or (facts.fault is Fault.BROKEN and _asks_the_model(decision.request)):
            self._against(decision, facts.served or decision.addresses[0], facts.fault, now)
        elif facts.complete and facts.status == 200:
            self.began(decision)
        self._failing.over(int(decision.rows.slots[decision.chosen]), decision.flight)

    def _against(self, decision: Decision, address: str, fault: Fault, now: float) -> None:
        slot = self.slot(address)
        if slot is not None:
            self._failing.failed(slot, fault, decision.at, now)


def _asks_the_model(request: Request) -> bool:
    """Of paths that are not read, those whose body names a model do."""
    return request.api is not Api.TOKENIZE and (request.api is not Api.PASSTHROUGH or request.model != "")
