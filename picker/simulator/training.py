"""The learning loop of a simulated picker: what another process does in service, done in line on the virtual clock."""

from typing import Protocol, runtime_checkable

from picker.learning.learner import Learner
from picker.learning.model import Model
from picker.learning.trainer import Trainer
from picker.learning.training import Parts, errors, train
from picker.policies.policy import Policy

ROUND_S = 0.5
"""From the rows to the model in use: a round in service takes about as long."""


@runtime_checkable
class Trained(Protocol):
    """A policy with a model that somebody has to train."""

    learner: Learner

    @property
    def parts(self) -> Parts: ...


class Training:
    """Call `turn` about once a second of virtual time. Policies without a model are left alone."""

    def __init__(self, policy: Policy) -> None:
        self.trainer: Trainer[Model] | None = None
        if isinstance(policy, Trained):
            parts = policy.parts
            self._learner = policy.learner
            self.trainer = Trainer(lambda rows, version: train(rows, version, parts), errors)
        self._ready: tuple[float, Model] | None = None

    def turn(self, now: float) -> None:
        """Hand rows over, train when due, adopt what is ready; `now` in seconds."""
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
