"""The router: reserve at pick, release exactly once, remember why."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from picker.engines.ledger import Ledger
from picker.engines.rows import Rows
from picker.engines.snapshot import snapshot
from picker.engines.table import EngineTable
from picker.policies.policy import KnowsMembers, Learns, Policy, Saturated
from picker.pool.view import Endpoint, Pool, PoolChange, Slots
from picker.requests.request import Request
from picker.routing.choice import choose
from picker.routing.decisions import Decision, DecisionLog
from picker.routing.failing import Failing
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.verdicts import Verdicts


class NoEndpoint(Exception):
    """Nothing can serve: the pool is empty, or the subset names none of it, or the policy excluded all."""


class Watcher(Protocol):
    """Whoever counts: told of each pick and of each end, never asked."""

    def picked(self, decision: Decision) -> None: ...
    def ended(self, decision: Decision) -> None: ...


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """`destinations`: how long the ordered list for the proxy is (the pick and its fallbacks).

    `sweep_after_s`: a flight without an end for so long is taken for lost; past `max_flights` the oldest is.
    `worker` and `workers` make flight ids unique over processes: id % workers == worker; they count up from
    `first_flight`.
    """

    destinations: int = 3
    sweep_after_s: float = 1800.0
    max_flights: int = 50_000
    worker: int = 0
    workers: int = 1
    first_flight: int = 1


def admit_all(request: Request, rows: Rows) -> bool:
    """Nobody is turned away."""
    return True


def at_once(work: Callable[[], None]) -> None:
    """Later is now."""
    work()


def aloud(error: Exception) -> None:
    """Whoever asked hears of it."""
    raise error


class Router:
    """One process's picks over one pool. Single-threaded; every method takes the caller's `now` in seconds.

    `admits` says of a request and the rows of its candidates whether it is picked for at all. What a pick leaves to
    those after it (`settle`) is given to `later`, as the proxy need not wait for it; no other call here comes before.
    What goes wrong there is said to `failed`: the pick stands, and the next request has no part in it.
    """

    def __init__(
        self,
        policy: Policy,
        hits: PrefixHits,
        rng: np.random.Generator,
        *,
        settings: RouterSettings = RouterSettings(),
        pool: Pool | None = None,
        table: EngineTable | None = None,
        ledger: Ledger | None = None,
        log: DecisionLog | None = None,
        watchers: Iterable[Watcher] = (),
        admits: Callable[[Request, Rows], bool] = admit_all,
        later: Callable[[Callable[[], None]], object] = at_once,
        failed: Callable[[Exception], None] = aloud,
    ) -> None:
        self.policy = policy
        self.hits = hits
        self.settings = settings
        # Compared with None, since a ledger or a log without entries counts as false.
        self.pool = Pool() if pool is None else pool
        self.table = EngineTable() if table is None else table
        self.ledger = Ledger() if ledger is None else ledger
        self.log = DecisionLog() if log is None else log
        self.failing = Failing()
        self._verdicts = Verdicts(self.pool, self.failing)
        self._learns = policy if isinstance(policy, Learns) else None
        self._admits = admits
        self._now = 0.0
        self._rng = rng
        self._watchers = tuple(watchers)
        self._open: dict[int, Decision] = {}
        self._later, self._failed = later, failed
        self._unsettled: Decision | None = None
        self._next = settings.first_flight + (settings.worker - settings.first_flight) % settings.workers

    @property
    def now(self) -> float:
        """The latest time that any call was told."""
        return self._now

    def update_pool(self, endpoints: Iterable[Endpoint]) -> PoolChange:
        """Serve exactly these endpoints from now on; running answers on the others are left alone."""
        self.settle()
        change = self.pool.replace(endpoints)
        for slot, _ in change.removed:
            self.ledger.forget(slot)
            self.table.clear(slot)
            self.hits.clear(slot)
            self.failing.forget(slot)
            if self._learns is not None:
                self._learns.left(slot)
        self.table.ensure(self.pool.capacity)
        self.ledger.ensure(self.pool.capacity)
        if self._learns is not None:
            self._learns.ensure(self.pool.capacity)
        for slot, endpoint in change.added:
            self.table.classify(slot, endpoint.hardware)
            self.hits.publishes(slot, endpoint.kv_events is not None)
        if isinstance(self.policy, KnowsMembers):
            # All of them: labels may have changed where neither address nor name did.
            view = change.view
            self.policy.meet(dict(zip(view.slots.tolist(), view.endpoints, strict=True)), self.table.lora)
        return change

    def pick(self, request: Request, subset: Iterable[str] | None, now: float) -> Decision:
        """Choose, reserve, remember. `subset` is the proxy's restriction (`ip:port` or `ip`), None for the whole pool.

        Endpoints that fail are no candidates, unless the policy excluded all others. Raises NoEndpoint, or Saturated
        where there is no room for this request; then nothing was reserved.
        """
        self.settle()
        self._now = max(self._now, now)
        view = self.pool.view
        endpoints, slots = view.endpoints, view.slots
        if subset is not None:
            positions = view.subset(subset)
            endpoints, slots = tuple(endpoints[i] for i in positions), slots[positions]
        if not len(slots):
            raise NoEndpoint("no endpoint is ready" if subset is None else "no ready endpoint is in the given subset")
        if self.failing.known and (kept := self.failing.spared(slots.tolist(), now)) is not None:
            spared = tuple([endpoints[i] for i in kept])
            out = set(range(len(endpoints))).difference(kept)
            left_out = tuple([endpoints[i].address for i in sorted(out)])
            with suppress(NoEndpoint):
                return self._pick(request, spared, slots[kept], now, left_out)
        return self._pick(request, endpoints, slots, now)

    def _pick(
        self,
        request: Request,
        endpoints: tuple[Endpoint, ...],
        slots: Slots,
        now: float,
        left_out: tuple[str, ...] = (),
    ) -> Decision:
        """The pick among these candidates."""
        hit_tokens = self.hits.tokens(request, slots, now)
        rows = snapshot(self.table, self.ledger, slots, hit_tokens, request.prompt_tokens, now)
        if not self._admits(request, rows):
            raise Saturated("the pool is full, and this request's objective lets it be turned away")
        scores = self.policy.score(request, rows, now)
        order, propensity = choose(scores.cost, self.settings.destinations, self._rng)
        if not len(order):
            raise NoEndpoint(f"policy {self.policy.name} excluded every endpoint")
        if scores.propensity is not None:
            propensity = float(scores.propensity[order[0]])
        decision = Decision(
            flight=self._next,
            at=now,
            request=request,
            policy=self.policy.name,
            endpoints=endpoints,
            rows=rows,
            scores=scores,
            order=tuple(order),
            propensity=propensity,
            left_out=left_out,
        )
        # What was asked for, until the answer's own headers say what came.
        decision.outcome.streamed = request.stream
        self._next += self.settings.workers
        row = decision.chosen
        slot = int(slots[row])
        if len(self._open) >= self.settings.max_flights:
            self.ended(next(iter(self._open)), Outcome())
        self.ledger.reserve(decision.flight, slot, float(rows.new_tokens[row]), request.prompt_tokens, now)
        if self.failing.known:
            self.failing.picked(slot, decision.flight, now)
        self._open[decision.flight] = self._unsettled = decision
        self._later(self.settle)
        return decision

    def settle(self) -> None:
        """Lay down what the last pick leaves to those after it: its blocks, what is learned of it, its words."""
        decision, self._unsettled = self._unsettled, None
        if decision is None:
            return
        request, rows, row, now = decision.request, decision.rows, decision.chosen, decision.at
        try:
            self.hits.placed(request, int(rows.slots[row]), now)
            self.policy.picked(request, rows, row, now)
            if self._learns is not None:
                self._learns.reserved(decision.flight, request, rows, row, decision.scores, decision.propensity, now)
            self.log.append(decision)
            for watcher in self._watchers:
                watcher.picked(decision)
        except Exception as error:
            self._failed(error)

    def first_byte(self, flight: int, now: float, ttft_s: float | None = None, status: int = 0) -> None:
        """The answer's body began: its prefill is done. Unknown flights are ignored, and words after the first.

        `ttft_s` is when it began, in seconds from the pick; None for just now. `status` is the answer's; 0 for as told
        before, or 200. An error's first byte is no first token, and teaches nothing.
        """
        self.settle()
        decision = self._open.get(flight)
        if decision is None:
            return
        self._now = max(self._now, now)
        self.ledger.first_byte(flight, now)
        facts = decision.outcome
        facts.status = facts.status or status
        if facts.status not in (0, 200):
            return
        if self.failing.known:
            self._verdicts.began(decision)
        if self._learns is not None and facts.streamed and not decision.fell_back:
            self._learns.first_byte(flight, max(0.0, now - decision.at) if ttft_s is None else ttft_s, now)

    def served(self, flight: int, address: str, now: float = 0.0) -> None:
        """The proxy says which endpoint serves, or which it tries: a later word stands for the one before.

        After a fallback the reservation moves there, and who was passed over failed. Here and in `ended`, without `now`
        it is the latest time that any call was told.
        """
        self.settle()
        self._now = max(self._now, now)
        decision = self._open.get(flight)
        if decision is None or decision.outcome.served == address:
            return
        before, decision.outcome.served = decision.outcome.served, address
        slot = self._verdicts.slot(address) if before is not None or decision.fell_back else None
        if slot is None:
            # As picked; or an address that is none of ours, which says nothing of those that are.
            return
        self.ledger.move(flight, slot)
        if decision.fell_back:
            self.hits.placed(decision.request, slot, decision.at)
            self._verdicts.passed_over(decision, self._now)

    def ended(self, flight: int, outcome: Outcome, now: float = 0.0) -> Decision | None:
        """Release the flight, once: later calls and unknown flights return None."""
        self.settle()
        self._now = max(self._now, now)
        decision = self._open.pop(flight, None)
        if decision is None:
            return None
        self.ledger.release(flight)
        decision.outcome.absorb(outcome)
        decision.ended = True
        facts = decision.outcome
        if facts.fault is not None or self.failing.known:
            self._verdicts.ended(decision, self._now)
        if facts.cached_tokens is not None and facts.prompt_tokens and not decision.fell_back:
            predicted = decision.predicted_hit_tokens
            self.hits.answered(decision.request, predicted, facts.cached_tokens, facts.prompt_tokens)
        if self._learns is not None:
            self._learns.ended(flight, None if decision.fell_back else facts, self._now)
        for watcher in self._watchers:
            watcher.ended(decision)
        return decision

    def is_open(self, flight: int) -> bool:
        """Whether this flight holds a reservation."""
        return flight in self._open

    def sweep(self, now: float) -> int:
        """End flights that nobody ended; returns how many. Call it every few seconds."""
        self._now = max(self._now, now)
        lost = self.ledger.sweep(now, self.settings.sweep_after_s)
        for flight in lost:
            self.ended(flight.id, Outcome())
        return len(lost)
