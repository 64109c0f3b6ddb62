"""Endpoints that fail are left out for a while: which ones, until when, and who tries them again. Sans-I/O.

    trusted     nothing is known against it; no state is kept
    suspect     it failed, which proves nothing yet
    left out    no pick goes there before `until`
    due         its time is over: a candidate like any other, and the pick that takes it is its trial
    on trial    left out until word of that pick comes, or for TRIAL_S

A connection that failed leaves its endpoint out at once. An answer that went wrong may be its request's fault, so that
takes ROW of them with no success between. The first time lasts FIRST_S; each failed trial doubles it, up to LONGEST_S.
A success clears all of it; while an endpoint is left out, only that of a pick made since then does. What the engine's
/metrics say shortens nothing: whoever answers a scrape may be unable to serve.

Never more than half of a pick's candidates are left out, and none where all of them would be: those that failed least,
of equals those that failed longest ago, stay.
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from picker.routing.outcome import Fault

ROW = 3
"""Answers in a row that go wrong before it is the endpoint's doing: one client's bad request takes none out."""
FIRST_S = 1.0
LONGEST_S = 30.0
TRIAL_S = 30.0
"""So long a trial is waited for; an endpoint that says nothing is tried again then."""
FRESH_S = 30.0
"""Word of a failed connection comes with the answer of whoever served instead; about older picks it is no news."""


class State(enum.StrEnum):
    """Of an endpoint that is not trusted, in words that people are told."""

    SUSPECT = "suspect"
    LEFT_OUT = "left out"
    DUE = "due"
    ON_TRIAL = "on trial"


@dataclass(slots=True)
class Record:
    """What is known against one endpoint. Seconds on the caller's clock; `hold_s` is 0 for a suspect. `since` is when
    it was last left out: what became of picks made before says nothing new."""

    fault: Fault
    failed_at: float = -math.inf
    row: int = 0
    hold_s: float = 0.0
    since: float = -math.inf
    until: float = -math.inf
    trial: int | None = None
    trial_at: float = -math.inf

    @property
    def suspect(self) -> bool:
        """Whether picks go there all the same, as nothing is proven."""
        return self.hold_s == 0

    def state(self, now: float) -> State:
        if self.suspect:
            return State.SUSPECT
        if now < self.until:
            return State.LEFT_OUT
        tried = self.trial is not None and now < self.trial_at + TRIAL_S
        return State.ON_TRIAL if tried else State.DUE

    def shunned(self, now: float) -> bool:
        """Whether picks stay away at this moment."""
        return self.state(now) in (State.LEFT_OUT, State.ON_TRIAL)

    def leave_out(self, hold_s: float, now: float) -> None:
        self.hold_s, self.since, self.until, self.trial = hold_s, now, now + hold_s, None


class Failing:
    """Records by slot, in `known`: empty, and never asked for anything, while nothing fails."""

    def __init__(self) -> None:
        self.known: dict[int, Record] = {}
        self.counts = dict.fromkeys(Fault, 0)
        """All failures that were told, by fault."""

    def failed(self, slot: int, fault: Fault, picked_at: float, now: float) -> None:
        """A request that was picked for at `picked_at` failed there."""
        self.counts[fault] += 1
        at_once = fault is Fault.UNREACHED
        if at_once and now - picked_at > FRESH_S:
            return
        record = self.known.get(slot)
        if record is None:
            record = self.known[slot] = Record(fault)
        elif picked_at <= record.since:
            # One of those that led to this.
            return
        record.fault, record.failed_at = fault, now
        record.row += 1
        if not record.suspect:
            if now >= record.until:
                record.leave_out(min(2 * record.hold_s, LONGEST_S), now)
        elif at_once or record.row >= ROW:
            record.leave_out(FIRST_S, now)

    def succeeded(self, slot: int, picked_at: float) -> None:
        """The answer to a request that was picked for at `picked_at` began there, or came whole."""
        record = self.known.get(slot)
        if record is not None and picked_at > record.since:
            del self.known[slot]

    def over(self, slot: int, flight: int) -> None:
        """This pick ended, well or not. If it was a trial that said nothing, the next pick may be one."""
        record = self.known.get(slot)
        if record is not None and record.trial == flight:
            record.trial = None

    def picked(self, slot: int, flight: int, now: float) -> None:
        """The pick goes there; where the endpoint is due, this is its trial."""
        record = self.known.get(slot)
        if record is not None and record.state(now) is State.DUE:
            record.trial, record.trial_at = flight, now

    def forget(self, slot: int) -> None:
        """The endpoint left the pool."""
        self.known.pop(slot, None)

    def spared(self, slots: Sequence[int], now: float) -> list[int] | None:
        """Positions of the candidates that picks may go to; None for all of them."""
        shunned = {slot: record for slot, record in self.known.items() if record.shunned(now)}
        if not shunned:
            return None
        out = [slot for slot in slots if slot in shunned]
        if not out or len(out) == len(slots):
            return None
        if len(out) > len(slots) // 2:
            out.sort(key=lambda slot: (shunned[slot].hold_s, shunned[slot].failed_at), reverse=True)
            del out[len(slots) // 2 :]
        return [position for position, slot in enumerate(slots) if slot not in out]

    def left_out(self) -> dict[int, Fault]:
        """Slots that picks stay away from but for trials, due ones among them, and what speaks against each."""
        return {slot: record.fault for slot, record in self.known.items() if not record.suspect}

    def told(self, slot: int, now: float) -> dict[str, Any] | None:
        """For people: what is known against this endpoint; None for nothing."""
        record = self.known.get(slot)
        if record is None:
            return None
        return {
            "state": record.state(now).value,
            "because": record.fault.value,
            "in_a_row": record.row,
            "for_s": max(0.0, record.until - now),
        }
