"""One engine's agent: which request to give away, to whom, and how a transfer goes, without any central eye.

    every tick       who has outgrown the stage, or is too much for this engine? -> Ask: own stage, then neighbours;
                     what has outgrown its stage asks the next one
    Ask              -> Bid: what a step would take here with it, and what that costs those who are here
    bid window over  the bid that saves most, if it saves more than the move costs -> Offer
    Offer            -> Reserve and Accept, or Decline
    Accept in time   -> Copy;  copied -> Pause and Commit, again and again
    Commit           -> Adopt and Committed, or Refused -> Drop, or Resume

From the first commit until its answer the request stands still, and only the answer or the peer's leaving the
membership ends that: whoever removes a live engine must first cut it off. Everything before ends by itself in time.
An engine with an ask or an offer out bids for nothing and accepts nothing, so offers that cross end both.

CascadeInfer (arXiv 2512.19179) has bids of this kind; messages and rules are our own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from picker.stages.agent_state import BidSettings, Membership, OwnState, Resident, prefill_ms, reliefs_ms, step_ms
from picker.stages.incoming import Incoming
from picker.stages.messages import (
    Accept,
    Adopt,
    Ask,
    Bid,
    Cancel,
    Commit,
    Committed,
    Copy,
    Decline,
    Drop,
    Load,
    Message,
    Offer,
    Output,
    Pause,
    Refused,
    Resume,
    Stop,
)
from picker.stages.step_model import StepModel

Phase = Literal["offered", "copying", "committing"]


@dataclass(slots=True)
class _Transfer:
    request: str
    to: str
    phase: Phase
    until: float
    """When the phase is over, or when to commit again."""


@dataclass(slots=True)
class _Asking:
    number: int
    resident: Resident
    until: float
    bids: dict[str, Bid] = field(default_factory=dict)


class Agent:
    """Of the engine `name`. Every method returns what to send and what to do, in order; `now` is in seconds, on a clock
    of its own. `first` is above every number that an earlier agent of this name used."""

    def __init__(self, name: str, model: StepModel, settings: BidSettings | None = None, *, first: int = 0) -> None:
        self.name, self.model, self.settings = name, model, settings or BidSettings()
        self.incoming = Incoming(name, lease_s=self.settings.lease_s)
        self.outgoing: dict[int, _Transfer] = {}
        self._next = first
        self._members = Membership()
        self._state = OwnState((), 0, 0)
        self._steps: dict[str, float] = {}
        self._asking: _Asking | None = None
        self._quiet_until = 0.0
        self._resting: dict[str, float] = {}
        self._wide = False

    # -- what it is told --------------------------------------------------------------------------------------------

    def follow(self, members: Membership, now: float) -> list[Output]:
        """The plan or the pool changed. Transfers with engines that left end."""
        gone = self._members.pool - members.pool
        self._members = members
        out: list[Output] = []
        for name in sorted(gone):
            self._steps.pop(name, None)
            if self._asking is not None:
                self._asking.bids.pop(name, None)
            out += self.incoming.left(name)
            for number, transfer in list(self.outgoing.items()):
                if transfer.to == name:
                    out += self._given_up(number, transfer)
        return out

    def tick(self, state: OwnState, now: float) -> list[Output]:
        """Some times a second, with what the engine is doing."""
        self._state = state
        self._resting = {request: until for request, until in self._resting.items() if until > now}
        step = self._step_ms()
        out: list[Output] = [Load(self.name, peer, step) for peer in self._members.stage]
        out += self.incoming.expire(now)
        for number, transfer in list(self.outgoing.items()):
            if now >= transfer.until:
                out += self._late(number, transfer, now)
        if self._asking is not None and now >= self._asking.until:
            out += self._chosen(self._asking, now)
        if self._asking is None and now >= self._quiet_until and self._open < self.settings.transfers:
            out += self._ask(now)
        return out

    def copied(self, number: int, done: bool, now: float) -> list[Output]:
        """The copy of an own transfer is complete, or failed."""
        transfer = self.outgoing.get(number)
        if transfer is None or transfer.phase != "copying":
            return []
        if not done:
            return self._cancelled(number)
        transfer.phase, transfer.until = "committing", now + self.settings.retry_s
        return [Pause(self.name, number, transfer.request), self._commit(number, transfer)]

    def over(self, request: str, now: float) -> list[Output]:
        """A request ended here. One that stands still cannot: its end is for who has it after the commit."""
        out: list[Output] = []
        if self._asking is not None and self._asking.resident.request == request:
            self._asking = None
        for number, transfer in list(self.outgoing.items()):
            if transfer.request == request and transfer.phase != "committing":
                stop = [Stop(self.name, number)] if transfer.phase == "copying" else []
                out += [*stop, *self._cancelled(number)]
        return out

    def receive(self, message: Message, now: float) -> list[Output]:
        """A message came, perhaps late, twice, or never before. From strangers nothing is taken."""
        if message.sender not in self._members.pool or message.to != self.name:
            return []
        match message:
            case Load():
                if 0 <= message.step_ms < float("inf"):
                    self._steps[message.sender] = message.step_ms
            case Ask():
                return self._bid(message)
            case Bid():
                if self._asking is not None and self._asking.number == message.ask:
                    self._asking.bids[message.sender] = message
            case Offer():
                return self.incoming.offered(message, self._room(message.kv_tokens), now)
            case Commit():
                out = self.incoming.committed(message, now, refuse=self._line)
                stays = now + self.settings.rest_s
                self._resting |= {done.request: stays for done in out if isinstance(done, Adopt)}
                return out
            case Cancel():
                return self.incoming.cancelled(message.sender, message.number)
            case Accept() | Decline() | Committed() | Refused():
                return self._answered(message, now)
        return []

    # -- giving away ------------------------------------------------------------------------------------------------

    def _ask(self, now: float) -> list[Output]:
        found = self._too_much()
        if found is None:
            return []
        resident, peers = found
        if not peers:
            return []
        number, self._next = self._next, self._next + 1
        self._asking = _Asking(number, resident, now + self.settings.window_s)
        return [Ask(self.name, peer, number, resident.length, resident.kv_tokens) for peer in sorted(peers)]

    def _too_much(self) -> tuple[Resident, Sequence[str]] | None:
        """Who should go, and who is asked."""
        moving = {transfer.request for transfer in self.outgoing.values()}
        free = [r for r in self._state.residents if r.movable and r.request not in moving | self._resting.keys()]
        outgrown = [resident for resident in free if resident.length >= self._members.high]
        if outgrown and self._members.following:
            return max(outgrown, key=lambda resident: resident.length), self._members.following
        if not free or not self._hot():
            return None
        reliefs = self._reliefs_ms()
        heaviest = max(free, key=lambda resident: resident.tokens_left * reliefs[resident.request])
        return heaviest, self._members.neighbours if self._wide or not self._members.stage else self._members.stage

    def _hot(self) -> bool:
        state = self._state
        used = 1.0 - state.kv_free / state.kv_tokens if state.kv_tokens else 0.0
        peers = [self._steps[name] for name in self._members.stage if name in self._steps]
        slow = bool(peers) and self._step_ms() > self.settings.hot * sum(peers) / len(peers)
        return used > self.settings.kv_full or slow

    def _chosen(self, asking: _Asking, now: float) -> list[Output]:
        """The window is over: take the best bid, or ask further away next time."""
        self._asking = None
        here = next((r for r in self._state.residents if r.request == asking.resident.request), None)
        left = asking.resident.tokens_left
        costs = {bid: left * (bid.step_ms + bid.burden_ms) + bid.wait_ms for bid in asking.bids.values()}
        best = min(costs, key=lambda bid: (costs[bid], bid.sender), default=None)
        if here is None or best is None or not self._worth(here, best):
            self._wide, self._quiet_until = not self._wide, now + self.settings.again_s
            return []
        self._wide = False
        number = asking.number
        self.outgoing[number] = _Transfer(here.request, best.sender, "offered", now + self.settings.accept_s)
        return [Offer(self.name, best.sender, number, self._oldest, here.request, here.kv_tokens)]

    def _worth(self, resident: Resident, bid: Bid) -> bool:
        must = self._members.firm and resident.length >= self._members.high and bid.sender in self._members.following
        return must or self._saved_ms(resident, bid) > self.settings.move_ms

    def _saved_ms(self, resident: Resident, bid: Bid) -> float:
        """By the move, over the tokens still to come: what it saves itself and those it leaves, less what it costs
        those it joins."""
        others = len(self._state.residents) - 1
        per_step = self._step_ms() - bid.step_ms + others * self._reliefs_ms()[resident.request] - bid.burden_ms
        return resident.tokens_left * per_step - bid.wait_ms

    def _answered(self, message: Accept | Decline | Committed | Refused, now: float) -> list[Output]:
        number, transfer = message.number, self.outgoing.get(message.number)
        if transfer is None or transfer.to != message.sender:
            return [Cancel(self.name, message.sender, number)] if isinstance(message, Accept) else []
        match message, transfer.phase:
            case Accept(), "offered":
                if now >= transfer.until:
                    return self._cancelled(number)
                transfer.phase, transfer.until = "copying", now + self.settings.copy_s
                return [Copy(self.name, number, transfer.request, transfer.to)]
            case Decline(), "offered":
                del self.outgoing[number]
            case Committed(), "committing":
                del self.outgoing[number]
                return [Drop(self.name, number, transfer.request)]
            case Refused(), "committing":
                del self.outgoing[number]
                return [Resume(self.name, number, transfer.request)]
        return []

    def _late(self, number: int, transfer: _Transfer, now: float) -> list[Output]:
        if transfer.phase == "committing":
            transfer.until = now + self.settings.retry_s
            return [self._commit(number, transfer)]
        stop = [Stop(self.name, number)] if transfer.phase == "copying" else []
        return [*stop, *self._cancelled(number)]

    def _given_up(self, number: int, transfer: _Transfer) -> list[Output]:
        """Its peer is gone."""
        del self.outgoing[number]
        match transfer.phase:
            case "committing":
                return [Resume(self.name, number, transfer.request)]
            case "copying":
                return [Stop(self.name, number)]
            case "offered":
                return []

    def _cancelled(self, number: int) -> list[Output]:
        return [Cancel(self.name, self.outgoing.pop(number).to, number)]

    def _commit(self, number: int, transfer: _Transfer) -> Commit:
        return Commit(self.name, transfer.to, number, self._oldest)

    # -- taking -----------------------------------------------------------------------------------------------------

    def _bid(self, ask: Ask) -> list[Output]:
        if not self._room(ask.kv_tokens) or self._hot():
            return []
        copy_ms = prefill_ms(self.model, ask.length, ask.length) if self.settings.computes else 0.0
        if copy_ms > 1e3 * self.settings.copy_s:
            return []
        here = len(self._state.residents)
        after = self._step_ms(ask.length)
        # All that is here waits for each step of that prefill, and so does who comes next.
        once = self._state.wait_ms + copy_ms * (here + 1)
        return [Bid(self.name, ask.sender, ask.ask, after, here * (after - self._step_ms()), once)]

    def _room(self, kv_tokens: int) -> bool:
        fits = 0 < kv_tokens <= self._state.kv_free - self.incoming.reserved_tokens
        busy = self._asking is not None or bool(self.outgoing)
        return fits and not busy and self._open < self.settings.transfers and not self._line

    @property
    def _line(self) -> bool:
        """Whether prompts wait here for longer than what is brought would be kept."""
        return self._state.wait_ms > self.settings.line_ms

    @property
    def _open(self) -> int:
        return len(self.outgoing) + len(self.incoming.open)

    @property
    def _oldest(self) -> int:
        return min(self.outgoing, default=self._next)

    def _step_ms(self, *more: float) -> float:
        """A step of what is here, and of requests of such lengths besides."""
        return step_ms(self.model, [*(resident.length for resident in self._state.residents), *more])

    def _reliefs_ms(self) -> dict[str, float]:
        residents = self._state.residents
        reliefs = reliefs_ms(self.model, residents)
        return {resident.request: relief for resident, relief in zip(residents, reliefs, strict=True)}
