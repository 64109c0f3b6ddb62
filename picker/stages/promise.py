"""Whether stages keep what their plan promised; those that do not are barred for a while.

What is compared is time in the pool per token of answer: as it was over as it was predicted, with stages and without.
A model that is wrong about everything alike errs in both, and only the stages' own share is left:

    saved = 1 - (seen / predicted, staged) / (seen / predicted, unstaged) x (1 - promised)

Load and mix may change in between; predictions follow them. Only requests count that were placed and ended under the
same rule.
"""

from dataclasses import dataclass

from picker.stages.replan import Plan

ENOUGH = 200
"""Requests under one rule, before it is judged."""
LOSS = 0.05
"""Share of the time that may seem lost by chance."""
BARRED_S, MOST_S = 300.0, 7200.0


@dataclass(slots=True)
class _Era:
    """While there were stages, or were none."""

    number: int = 0
    staged: bool = False
    requests: int = 0
    ms: float = 0.0
    tokens: float = 0.0
    predicted_ms: float = 0.0
    looks: int = 0

    @property
    def ratio(self) -> float | None:
        """Seen over predicted; None where there is too little to tell."""
        if self.requests < ENOUGH or not self.looks or not self.tokens > 0:
            return None
        return self.ms / self.tokens / (self.predicted_ms / self.looks)


class Promise:
    """Begins without stages."""

    def __init__(self) -> None:
        self._now = _Era()
        self._plain: float | None = None
        self._barred_until = 0.0
        self._barred_s = BARRED_S

    @property
    def era(self) -> int:
        """Grows whenever stages come or go."""
        return self._now.number

    def ended(self, era: int, ms: float, tokens: float) -> None:
        """An answer of so many tokens is over, so long after its request came, which was placed in that era."""
        if era == self._now.number and 0 <= ms < float("inf") and tokens > 0:
            self._now.requests += 1
            self._now.ms += ms
            self._now.tokens += tokens

    def objection(self, plan: Plan, now: float) -> str:
        """Why this plan shall not be followed; empty where it may be. Tell every new plan, before it is."""
        era = self._now
        predicted = plan.ms if era.staged and plan.staged else 0.0 if era.staged else plan.unstaged_ms
        if predicted > 0 and plan.load >= 1:
            era.predicted_ms += predicted
            era.looks += 1
        ratio = era.ratio
        if ratio is not None and not era.staged:
            self._plain = ratio
        if ratio is not None and era.staged and plan.staged and self._plain:
            saved = 1.0 - ratio / self._plain * (1.0 - plan.gain)
            if saved < -LOSS:
                self._barred_until = now + self._barred_s
                self._barred_s = min(2 * self._barred_s, MOST_S)
                return f"{plan.gain:.1%} was promised and {-saved:.1%} lost"
        if plan.staged and now < self._barred_until:
            return f"stages lost time before; barred for {self._barred_until - now:.0f} s"
        return ""

    def follows(self, staged: bool) -> None:
        """What holds from now on."""
        if staged != self._now.staged:
            self._now = _Era(self._now.number + 1, staged)
