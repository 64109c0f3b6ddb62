"""What agents of engines say to each other, and what they tell their engine to do.

A transfer goes by its source and a number that only grows. `oldest` is the lowest number that the source still has
open: whatever is below is over, which lets the other side forget it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """From one agent to another, by the names of the membership."""

    sender: str
    to: str


@dataclass(frozen=True, slots=True)
class Load(Message):
    """How long a step takes there, in ms, for whoever compares."""

    step_ms: float


@dataclass(frozen=True, slots=True)
class Ask(Message):
    """Who would have a request of this length? Reserves nothing."""

    ask: int
    length: float
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Bid(Message):
    """It would have steps of `step_ms` here, and all that is here would have `burden_ms` more of them per step. Once it
    costs `wait_ms`: how long it waits for its first step, and what others wait if its KV is computed here."""

    ask: int
    step_ms: float
    burden_ms: float
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Transferring(Message):
    """About one transfer, which goes by its source and this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Offer(Transferring):
    """To the one whose bid was taken: reserve KV, and say whether it is."""

    oldest: int
    request: str
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Accept(Transferring):
    """KV is reserved."""


@dataclass(frozen=True, slots=True)
class Decline(Transferring):
    """It is not, and will not be for this number."""


@dataclass(frozen=True, slots=True)
class Commit(Transferring):
    """All is copied and the request stands still: take it. Repeated until it is answered."""

    oldest: int


@dataclass(frozen=True, slots=True)
class Committed(Transferring):
    """The request is the receiver's of the commit now, for good."""


@dataclass(frozen=True, slots=True)
class Refused(Transferring):
    """It never will be."""


@dataclass(frozen=True, slots=True)
class Cancel(Transferring):
    """The source gives the transfer up."""


@dataclass(frozen=True, slots=True)
class Action:
    """For the engine of the agent; `source` and `number` name the transfer."""

    source: str
    number: int


@dataclass(frozen=True, slots=True)
class Reserve(Action):
    """Keep so much KV free."""

    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Free(Action):
    """No more need to."""


@dataclass(frozen=True, slots=True)
class Copy(Action):
    """Copy this request's KV to that engine while it runs on; tell `copied`."""

    request: str
    to: str


@dataclass(frozen=True, slots=True)
class Stop(Action):
    """Stop copying; the request runs on."""


@dataclass(frozen=True, slots=True)
class Pause(Action):
    """The request stands still: its last tokens' KV is copied, and nobody may run it."""

    request: str


@dataclass(frozen=True, slots=True)
class Resume(Action):
    """It runs on here."""

    request: str


@dataclass(frozen=True, slots=True)
class Drop(Action):
    """It runs elsewhere: forget it."""

    request: str


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """Run this request, in the KV that was reserved for it."""

    request: str


Output = Message | Action
