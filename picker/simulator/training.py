"""The learning loop of a simulated picker: what another process does in service, done in line on the virtual clock."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from picker.learning.decision import Balance
from picker.learning.guard import Mode, Reason, Transition
from picker.learning.learner import Learner
from picker.learning.model import Model
from picker.learning.rounds import Rounds
from picker.learning.trainer import Trainer
from picker.learning.training import Parts, errors
from picker.policies.policy import Plans, Policy, innermost
from picker.routing.decisions import Decision

ROUND_S = 0.5
"""From the rows to the model in use: a round in service takes about as long."""


@runtime_checkable
class Trained(Protocol):
    """A policy with a model that somebody has to train."""

    learner: Learner
    balance: Balance

    @property
    def parts(self) -> Parts: ...
    @property
    def mode(self) -> Mode: ...


class Progress(NamedTuple):
    """How far learning is. Picks are counted from the start."""

    picks: int
    by_model: int
    model_error: float | None
    """The guard's running mean |log error| of TTFT; None before the first prediction whose truth is known."""
    baseline_error: float | None
    mode: Mode
    reason: Reason
    version: int
    """Of the model in use; 0 without one."""
    decode_weight: float
    """As steered, also where a variant of the policy leaves it out."""


class Training:
    """Call `turn` about once a second of virtual time, and let it watch the picks. Policies with neither a model nor
    plans are left alone."""

    def __init__(self, policy: Policy) -> None:
        self.trainer: Trainer[Model] | None = None
        self._policy: Trained | None = None
        self._picks = self._by_model = 0
        self._plans = policy if isinstance(policy, Plans) else None
        policy = innermost(policy)
        if isinstance(policy, Trained):
            self._policy = policy
            self._learner = policy.learner
            self.trainer = Trainer(Rounds(policy.parts), errors)
        self._ready: tuple[float, Model] | None = None

    def turn(self, now: float) -> None:
        """Plan, hand rows over, train when due, adopt what is ready; `now` in seconds."""
        if self._plans is not None and (think := self._plans.due(now)) is not None:
            self._plans.adopt(think(), now)
        if self.trainer is None:
            return
        if self._ready is not None and now >= self._ready[0]:
            self._learner.adopt(self._ready[1], now)
            self._ready = None
        self._learner.tick(now)
        self.trainer.add(self._learner.drain(now))
        for endpoint, before_s in self._learner.forgotten:
            self.trainer.forget(endpoint, before_s)
        self._learner.forgotten.clear()
        if self._ready is None and (model := self.trainer.poll(now)) is not None:
            self._ready = now + ROUND_S, model

    def picked(self, decision: Decision) -> None:
        self._picks += 1
        self._by_model += decision.scores.by == "model"

    def ended(self, decision: Decision) -> None:
        pass

    @property
    def progress(self) -> Progress | None:
        """None of a policy that does not learn."""
        if self._policy is None:
            return None
        guard, model = self._learner.guard, self._learner.model
        numbers = guard.numbers
        predicted = numbers["model_error"] + numbers["baseline_error"] > 0
        return Progress(
            self._picks,
            self._by_model,
            numbers["model_error"] if predicted else None,
            numbers["baseline_error"] if predicted else None,
            self._policy.mode,
            guard.reason,
            0 if model is None else model.version,
            self._policy.balance.weight,
        )

    @property
    def handovers(self) -> Sequence[Transition]:
        """The guard's last ones."""
        return () if self._policy is None else tuple(self._learner.guard.transitions)
