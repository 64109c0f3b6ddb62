"""An agent of one engine and what it is told."""

from typing import TypeVar

from stage_traffic import ENGINE

from picker.stages.agent_state import Membership, OwnState, Resident
from picker.stages.bids import Agent
from picker.stages.messages import (
    Accept,
    Bid,
    Commit,
    Output,
)

Kind = TypeVar("Kind")
A_STAGE = Membership(pool=frozenset({"b", "c"}), stage=("b",), neighbours=("c",))
LOAD = 1_000


def resident(name: str = "r", length: float = 1000.0, left: float = 500.0, movable: bool = True) -> Resident:
    return Resident(name, length, LOAD, left, movable)


def state(*residents: Resident, free: int = 100_000) -> OwnState:
    return OwnState(residents, free, 400_000)


def agent(members: Membership = A_STAGE, name: str = "a") -> Agent:
    made = Agent(name, ENGINE)
    made.follow(members, 0.0)
    return made


def said(outputs: list[Output], kind: type[Kind]) -> list[Kind]:
    return [output for output in outputs if isinstance(output, kind)]


def to_commit(source: Agent, free: bool = True) -> None:
    """Bring the source to its first commit of request r towards b, at 0.1 s."""
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)
    source.receive(Accept("b", "a", 0), 0.07)
    assert said(source.copied(0, True, 0.1), Commit)
