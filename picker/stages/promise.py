"""Whether stages keep what their plan promised; those that do not are barred for a while.

What is compared is time in the pool per token of answer: as it was over as it was predicted, with stages and without.
A model that is wrong about everything alike errs in both, and only the stages' own share is left:

    saved = 1 - (seen / predicted, staged) / (seen / predicted, unstaged) x (1 - promised)

Load and mix may change in between; predictions follow them. They are of a steady state, so nothing is compared while
the number of requests in the pool rises or falls. A drop is a test, too: if without stages it is no better, they are
acquitted. Only requests count that were placed and ended under the same rule.
"""

from dataclasses import dataclass

from picker.stages.replan import Plan

ENOUGH = 200
"""Requests under one rule, before it is judged."""
LOSS = 0.05
"""Share of the time that may seem lost by chance."""
BARRED_S, MOST_S = 300.0, 7200.0
STEADY, FEW = 1.25, 10
"""Requests in the pool may differ by this factor, and by so many, where it is taken for steady."""


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
    open: int = 0
    """Requests in the pool when this was begun."""

    def steady(self, now_open: int) -> bool:
        least, most = sorted((self.open, now_open))
        return most <= STEADY * least + FEW

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
        self._blamed: float | None = None
        """What stages were dropped for: the ratio without them that would have been as bad."""
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

    def objection(self, plan: Plan, now: float, requests: int) -> str:
        """Why this plan shall not be followed; empty where it may be. Tell every new plan, before it is, with the
        number of requests in the pool."""
        if not self._now.steady(requests):
            self._now = _Era(self._now.number, self._now.staged, open=requests)
        era = self._now
        predicted = plan.ms if era.staged and plan.staged else 0.0 if era.staged else plan.unstaged_ms
        if predicted > 0 and plan.load >= 1:
            era.predicted_ms += predicted
            era.looks += 1
        ratio = era.ratio
        if ratio is not None and not era.staged:
            self._plain = ratio
            if self._blamed is not None and ratio * (1.0 + LOSS) >= self._blamed:
                self._barred_until, self._barred_s = now, max(BARRED_S, self._barred_s / 2)
            self._blamed = None
        if ratio is not None and era.staged and plan.staged and self._plain:
            blamed = ratio * (1.0 - plan.gain)
            saved = 1.0 - blamed / self._plain
            if saved < -LOSS:
                self._blamed = blamed
                self._barred_until = now + self._barred_s
                self._barred_s = min(2 * self._barred_s, MOST_S)
                return f"{plan.gain:.1%} was promised and {-saved:.1%} lost"
        if plan.staged and now < self._barred_until:
            return f"stages lost time before; barred for {self._barred_until - now:.0f} s"
        return ""

    def follows(self, staged: bool, requests: int) -> None:
        """What holds from now on."""
        if staged != self._now.staged:
            self._now = _Era(self._now.number + 1, staged, open=requests)
