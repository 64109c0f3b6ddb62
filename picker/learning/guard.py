"""Who decides: the model, or the rule (LMetric) because of exactly one reason.

    COLD         no model, or too few rows seen or predicted so far
    POISONED     too many rows are insane: whatever was learned from such a stream, or will be, is not to be trusted
    SATURATED    queues grow everywhere (picker/learning/saturation.py)
    ERROR        the model's predictions are hardly better than a calibrated baseline's
    CANARY       the few picks left to the rule come out significantly better (picker/learning/canary.py)

Each of these is a latch with a higher bar to trip than to release; the first in this order that is tripped is the
reason. The model gets back when all are released and a minimum stay is over, which doubles with each relapse and is
short again after a long time without: flapping is bounded. Only COLD ends at once.

Four further reasons are a pick's own and leave the mode as it is: OUT_OF_RANGE, where the model would have to guess;
FAILED, where it could not be asked at all; SLICE, left to the one not in charge so that both can be compared; NONE, the
model decided.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.learning.canary import Canary, Moments
from picker.learning.experience import BY_MODEL, BY_RULE
from picker.learning.guard_settings import DEFAULTS, GuardSettings
from picker.learning.saturation import Saturation

TRANSITIONS_KEPT = 64
WORST_ERROR = 3.0
"""Log errors count at most so much: a prediction off by twenty times is as wrong as any."""


class Mode(StrEnum):
    LEARNED = "learned"
    RULE = "rule"


class Reason(StrEnum):
    NONE = "none"
    COLD = "cold"
    POISONED = "poisoned"
    SATURATED = "saturated"
    ERROR = "error"
    CANARY = "canary"
    OUT_OF_RANGE = "out_of_range"
    SLICE = "slice"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of one pick. Logs of milliseconds; nan where unknown."""

    by: int
    """BY_RULE or BY_MODEL."""
    log_ttft: float
    log_predicted: float
    """What the model in use said of the endpoint picked; inf or -inf if it said nonsense."""
    log_baseline: float
    """What `baseline.at_pick` led to expect."""
    log_expected: float
    """What `baseline.before_pick` led to expect."""
    weight: float
    """One over the probability, at the pick, that the one who decided would decide (`Guard.propensity`); 0 where no
    draw decided (out of range, a probe): such picks are no fair sample of either."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A hand-over, or a change of the reason for one. `was` and `now` are the mode's reasons."""

    at_s: float
    was: Reason
    now: Reason
    numbers: Mapping[str, float]


class _Latch:
    """Trips at `trip` or above, releases below `release`."""

    def __init__(self, trip: float, release: float) -> None:
        self.tripped = False
        self._trip, self._release = trip, release

    def update(self, value: float) -> None:
        self.tripped = value >= (self._release if self.tripped else self._trip)


class Guard:
    """The state machine. Pure: seconds of the caller's clock and the generator are arguments."""

    def __init__(self, settings: GuardSettings = DEFAULTS) -> None:
        self.reason = Reason.COLD
        """Why the rule is in charge; NONE while the model is."""
        self.counts: dict[Reason, int] = dict.fromkeys(Reason, 0)
        """Picks by the reason for who decided."""
        self.transitions: deque[Transition] = deque(maxlen=TRANSITIONS_KEPT)
        self._settings = settings
        self._canary = Canary(
            z=settings.canary_z,
            margin=settings.canary_margin,
            fewest_rows=settings.canary_fewest,
            window_s=settings.canary_window_s,
            window_rows=settings.canary_window_rows,
        )
        self._saturation = Saturation(
            look_back_s=settings.saturation_look_back_s, prefills=settings.saturation_prefills
        )
        self._error = _Latch(settings.error_trip, settings.error_release)
        self._insane = _Latch(settings.insane_trip, settings.insane_release)
        self._model_error, self._baseline_error, self._insane_share = Moments(), Moments(), Moments()
        self._keep = 1.0 - 1.0 / settings.error_rows
        self._usable = self._proven = False
        self._rows = self._predictions = 0
        self._stay_s = settings.stay_s
        self._stay_until = self._returned_at = -math.inf
        self._share: float | None = None

    @property
    def mode(self) -> Mode:
        """Who is in charge."""
        return Mode.LEARNED if self.reason is Reason.NONE else Mode.RULE

    @property
    def canary_share(self) -> float:
        """Share of picks left to the one not in charge; none while cold."""
        if self._share is None:
            self._share = self._canary_share()
        return self._share

    def propensity(self, by: int) -> float:
        """Probability that the next pick is decided by the rule or by the model."""
        in_charge = BY_MODEL if self.reason is Reason.NONE else BY_RULE
        return 1.0 - self.canary_share if by == in_charge else self.canary_share

    def draw(self, rng: np.random.Generator) -> int:
        """Who decides the next pick: BY_RULE or BY_MODEL."""
        return BY_MODEL if rng.random() < self.propensity(BY_MODEL) else BY_RULE

    def why(self, by: int, outside: bool = False) -> Reason:
        """Why the next pick is made by the one who was drawn, or, `outside` the trained range, by the rule."""
        if outside:
            return Reason.OUT_OF_RANGE
        return self.reason if by == (BY_MODEL if self.reason is Reason.NONE else BY_RULE) else Reason.SLICE

    def picked(self, reason: Reason) -> None:
        """A pick was made for this reason."""
        self.counts[reason] += 1

    def model(self, usable: bool, now: float, *, proven: bool = False) -> None:
        """A model is in use now, or none is. `proven`: it was in charge before a restart and needs no rows to be so."""
        self._usable, self._proven = usable, usable and (proven or self._proven)
        self._judge(now)

    def observe(self, outcome: Outcome, now: float) -> None:
        """A pick's request has finished, and its row is sane."""
        self._rows += 1
        told = not math.isnan(outcome.log_predicted)
        if told and math.isfinite(outcome.log_baseline) and math.isfinite(outcome.log_ttft):
            self._predictions += 1
            for errors, said in (
                (self._model_error, outcome.log_predicted),
                (self._baseline_error, outcome.log_baseline),
            ):
                errors.forget(self._keep)
                errors.add(min(abs(said - outcome.log_ttft), WORST_ERROR))
            if self._predictions >= self._settings.cold_predictions:
                self._error.update(self.error_ratio)
        weight = 0.0 if self.reason is Reason.COLD else min(outcome.weight, 2.0 / self._settings.canary_share)
        verdict = self._canary.observe(outcome.by, outcome.log_ttft - outcome.log_expected, weight, now)
        self._judge(now)
        if verdict:
            self._canary.restart()
            self._share = None

    def inspect(self, rows: int, insane: int, now: float) -> None:
        """So many rows came in, so many of them insane (`experience.sane`)."""
        for value, count in ((1.0, min(insane, rows)), (0.0, rows - insane)):
            if count > 0:
                self._insane_share.forget(self._keep**count)
                self._insane_share.add(value, count)
        if self._insane_share.weight >= self._settings.cold_predictions:
            self._insane.update(self._insane_share.mean)
        self._judge(now)

    def pool(self, now: float, queued_ms: Column, prefill_ms: float) -> None:
        """About once a second: predicted wait of each endpoint, (N,), and a usual request's own prefill, ms."""
        self._saturation.look(now, queued_ms, prefill_ms)
        self._judge(now)

    @property
    def error_ratio(self) -> float:
        """Mean |log error| of the model over the baseline's; 1 before the first row."""
        return (self._model_error.mean + 1e-6) / (self._baseline_error.mean + 1e-6)

    @property
    def numbers(self) -> Mapping[str, float]:
        """What the latches look at, for metrics and the log; finite."""
        by_rule, by_model = self._canary.rows
        return {
            "rows": float(self._rows),
            "error_ratio": self.error_ratio,
            "model_error": self._model_error.mean,
            "baseline_error": self._baseline_error.mean,
            "canary_z": self._canary.z,
            "canary_difference": self._canary.difference,
            "canary_rows_rule": by_rule,
            "canary_rows_model": by_model,
            "queued_prefills": self._saturation.prefills,
            "insane_share": self._insane_share.mean,
        }

    def _canary_share(self) -> float:
        settings = self._settings
        if self.reason is Reason.COLD:
            return 0.0
        wary = not self._canary.enough or self._canary.z >= settings.wary_z
        return settings.wary_share if self.reason is Reason.NONE and wary else settings.canary_share

    def _wanted(self) -> Reason:
        settings = self._settings
        seen = self._rows >= settings.cold_rows and self._predictions >= settings.cold_predictions
        if not self._usable or not (seen or self._proven):
            return Reason.COLD
        if self._insane.tripped:
            return Reason.POISONED
        if self._saturation.tripped:
            return Reason.SATURATED
        if self._error.tripped:
            return Reason.ERROR
        return Reason.CANARY if self._canary.tripped else Reason.NONE

    def _judge(self, now: float) -> None:
        self._share = None
        wanted = self._wanted()
        if wanted is self.reason:
            return
        if wanted is Reason.NONE and self.reason is not Reason.COLD and now < self._stay_until:
            return
        self.transitions.append(Transition(now, self.reason, wanted, self.numbers))
        if wanted is Reason.NONE:
            self._returned_at = self._returned_at if self.reason is Reason.COLD else now
            self._canary.restart()
        elif wanted is not Reason.COLD and self.reason in (Reason.NONE, Reason.COLD):
            self._prolong(now)
            self._canary.restart()
        self.reason = wanted

    def _prolong(self, now: float) -> None:
        """Set how long the rule stays: twice as long as last time if the model was back for less than four of that."""
        settings = self._settings
        relapsed = now - self._returned_at < 4 * self._stay_s
        self._stay_s = min(2 * self._stay_s, settings.longest_stay_s) if relapsed else settings.stay_s
        self._stay_until = now + self._stay_s


def accept(candidate_errors: Column, current_errors: Column, tolerance: float = 1.1) -> bool:
    """Whether a new model may take over: its mean |log error| is at most `tolerance` times the current one's.

    Both of shape (rows,), on the same latest rows; no rows speak against nobody. A candidate whose error is no finite
    number is refused.
    """
    if not len(candidate_errors):
        return True
    ours, theirs = (float(np.mean(np.abs(errors))) for errors in (candidate_errors, current_errors))
    return math.isfinite(ours) and not ours > tolerance * theirs
