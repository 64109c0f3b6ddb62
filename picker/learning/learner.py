"""What the serving process holds of what is learned: the model in use, what corrects it, who may decide, and the rows
that are on their way to the trainer.

    pick      predict -> (policy decides) -> placed, reserved
    answer    first_byte -> correction, drift, guard;  ended -> a row of experience
    now and then   tick;  drain -> trainer -> adopt
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from picker.engines.rows import Rows
from picker.engines.table import grown
from picker.learning.baseline import AT_PICK, BEFORE_PICK, Baseline, at_pick, before_pick
from picker.learning.correction import Corrections
from picker.learning.decision import Judgement, Stakes, judge, too_small
from picker.learning.drift import Drift
from picker.learning.experience import EXPERIENCE, LONGEST_MS, Experience, joined, row_of, sane
from picker.learning.exploration import bonus
from picker.learning.features import features
from picker.learning.guard import Guard, Outcome
from picker.learning.kernel import NUMBER, PICKED_AT, SEEN, Places, judge_rows
from picker.learning.lengths import OutputLengths
from picker.learning.model import (
    NOT_CORRECTED,
    TPOT_BOUND,
    TTFT_BOUND,
    Estimate,
    Model,
    estimate,
)
from picker.learning.online_tree import OnlineTrees
from picker.learning.prediction import Compiled, Foresight, Opinion, Prediction
from picker.learning.pressure import Pressure
from picker.learning.quickscorer import COMPILED
from picker.learning.ranges import SLACK, outside, unknown_ground
from picker.learning.ready import Ready, ready
from picker.learning.recent import Recent
from picker.learning.reuse import Reuse
from picker.learning.thinning import Thinning
from picker.learning.whole import log_together
from picker.requests.request import Request

MAX_OUTBOX = 20_000
MAX_PENDING = 100_000
MAX_FORGOTTEN = 1000
_NOTHING = np.array([0.0, 0.0, -math.inf])
_BOUNDS = np.array([[TTFT_BOUND], [TPOT_BOUND]])


@dataclass(slots=True)
class _Pending:
    """A pick on its way: its row of experience so far, and what was expected of it."""

    slot: int
    by: int
    row: Experience
    log_ttft: float
    log_tpot: float
    online: tuple[float, float]
    correction: float
    at_pick: tuple[float, ...]
    before_pick: tuple[float, ...]
    weight: float
    request: Request
    told: bool = False


class Learner:
    """Single-threaded; times are seconds of one clock that does not go back."""

    def __init__(self, guard: Guard | None = None, *, correct: bool = True, online: OnlineTrees | None = None) -> None:
        """`correct` off leaves corrections of endpoints out. `online` trees learn here what models that come without
        trees and corrections miss."""
        self.guard = Guard() if guard is None else guard
        self.model: Model | None = None
        self.online = online
        self.corrections, self.drift = Corrections(), Drift()
        self.lengths, self.reuse, self.pressure = OutputLengths(), Reuse(), Pressure()
        self.thinning = Thinning()
        self.overflowed = 0
        """Rows lost because nobody drained them."""
        self.forgotten: list[tuple[int, float]] = []
        """Endpoint numbers that drifted and since when: their older rows teach no more. Taken out by the caller."""
        self.spread = 0.5
        """Standard deviation of the log error of TTFT."""
        self._correct = correct
        self._baseline, self._before = Baseline(AT_PICK), Baseline(BEFORE_PICK)
        self._outbox: deque[Experience] = deque()
        self._pending: dict[int, _Pending] = {}
        self._slots = np.repeat(_NOTHING[:, None], 64, axis=1)
        self._numbers = 0
        self._recent = Recent()
        self._queue: Judgement | None = None
        self._ready: Ready | None = None

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        if capacity > self._slots.shape[1]:
            self._slots = grown(self._slots, capacity, _NOTHING)
        self.corrections.ensure(capacity)
        self.pressure.ensure(capacity)

    def predict(self, request: Request, rows: Rows, now: float) -> Prediction:
        """What the model says of each endpoint."""
        known = features(rows, request.prompt_tokens, self.pressure.prefill_rate(rows.slots, now))
        memory_s = self.pressure.memory_s(rows.slots, now)
        chance = np.where(np.isinf(memory_s), 0.0, self.reuse.chance(memory_s))
        correction = self.corrections.by_slot[:, rows.slots].astype(np.float64)
        if not self._correct:
            correction[:] = 0.0
        correction[0] += bonus(self._slots[SEEN, rows.slots])
        model, said, online = self.model, None, np.zeros((2, len(rows)))
        if model is not None:
            said = estimate(model, known, rows.hardware)
            if self.online is not None:
                online = np.clip(self.online.predict(known.trees), -_BOUNDS, _BOUNDS).astype(np.float64)
                said = Estimate(said.log_ttft + online[0], said.log_tpot + online[1])
        return Prediction(known, said, online, correction, chance)

    def judge(self, request: Request, rows: Rows, stakes: Stakes, now: float) -> Opinion:
        """Costs of at least one endpoint by the model, which must be there."""
        model = self.model
        assert model is not None
        if COMPILED and self._ready is not None:
            shown = self.corrections.by_slot if self._correct else np.zeros_like(self.corrections.by_slot)
            places = Places(self.pressure.columns, shown, self._slots, self.reuse.chances)
            columns, known, about = judge_rows(self._ready, rows, places, stakes, now)
            return Opinion(Judgement(columns), Compiled(columns, known), *about)
        told = self.predict(request, rows, now)
        assert told.said is not None
        judgement = judge(model, told.said, told.known, rows, told.correction, told.chance, stakes)
        best = int(np.argmin(judgement.cost))
        beyond = outside(told.known.trees.astype(np.float32), model.lowest, model.highest, SLACK)
        refusing = bool(too_small(rows, stakes.prompt_tokens).any())
        left_out_s = now - self._slots[PICKED_AT, rows.slots]
        longest = int(np.argmax(left_out_s))
        return Opinion(
            judgement, told, best, unknown_ground(beyond, best), refusing, longest, float(left_out_s[longest])
        )

    def placed(self, request: Request, rows: Rows, row: int, output_tokens: float, now: float) -> None:
        """Row `row` was picked; the answer is expected to come to so many tokens."""
        slot = int(rows.slots[row])
        self.pressure.placed(slot, float(rows.new_tokens[row]), output_tokens, float(rows.kv_tokens[row]), now)
        self.reuse.asked(request.chain, now)
        self._slots[PICKED_AT, slot] = now

    def reserved(
        self,
        flight: int,
        request: Request,
        rows: Rows,
        row: int,
        prediction: Foresight,
        *,
        by: int,
        propensity: float,
        weight: float,
        now: float,
        tried: bool = False,
    ) -> None:
        """The pick goes by this number until `ended`, if it is one to learn from; `weight` is the guard's. Past
        MAX_PENDING nothing is kept. What was `tried` to learn from it always is, and weighs as if it had been drawn."""
        chance = self.thinning.chance(len(rows), now)
        if len(self._pending) >= MAX_PENDING or not (tried or self.thinning.keeps(chance)):
            return
        told, slot = prediction.of(row), int(rows.slots[row])
        kept = row_of(
            now,
            self.number(slot),
            int(rows.hardware[row]),
            by,
            propensity,
            told.head_ms,
            told.ttft_terms,
            told.tpot_terms,
            told.trees,
        )
        self._pending[flight] = _Pending(
            slot,
            by,
            kept,
            told.log_ttft,
            told.log_tpot,
            told.online,
            told.correction,
            at_pick(float(rows.new_tokens[row]), float(rows.batch[row])),
            before_pick(request.prompt_tokens, rows),
            weight * chance if tried else weight,
            request,
        )

    def first_byte(self, flight: int, ttft_s: float, now: float) -> None:
        """The first token came. Later words about the same flight change nothing."""
        pending = self._pending.get(flight)
        if pending is None or pending.told or not 0 < ttft_s * 1e3 < LONGEST_MS:
            return
        pending.told = True
        if pending.slot >= 0:
            pending.row["ttft_ms"] = ttft_s * 1e3
            self._recent.remember(pending.slot, pending.row)
        self._first_token(pending, math.log(ttft_s * 1e3), now)

    def ended(
        self, flight: int, ttft_s: float | None, tpot_s: float | None, output_tokens: int | None, now: float
    ) -> None:
        """The request is over; its row goes to the outbox if its first token came."""
        if ttft_s is not None:
            self.first_byte(flight, ttft_s, now)
        pending = self._pending.pop(flight, None)
        if pending is None or ttft_s is None:
            return
        row = pending.row
        row["ttft_ms"], row["tpot_ms"] = ttft_s * 1e3, math.nan if tpot_s is None else tpot_s * 1e3
        if output_tokens is not None:
            row["output_tokens"] = output_tokens
            self.lengths.learn(pending.request, float(output_tokens))
        if tpot_s is not None and tpot_s > 0:
            self._later_tokens(pending, math.log(tpot_s * 1e3), now)
        self._send(row)

    def answered(self, flight: int, answer_s: float, output_tokens: int | None, now: float) -> None:
        """The request is over, and its answer of so many tokens came whole after so many seconds: what the first one
        took of them is what the model says (`picker/learning/whole.py`). Without their number it teaches nothing."""
        pending = self._pending.pop(flight, None)
        if pending is None or not output_tokens or output_tokens < 1 or not 0 < answer_s * 1e3 < LONGEST_MS:
            return
        self.lengths.learn(pending.request, float(output_tokens))
        row = pending.row
        row["whole"], row["ttft_ms"], row["output_tokens"] = 1, answer_s * 1e3, output_tokens
        if pending.slot >= 0:
            self._recent.remember(pending.slot, row)
        log_ttft, log_tpot = pending.log_ttft, pending.log_tpot
        if math.isfinite(log_ttft + log_tpot):
            missed = math.log(answer_s * 1e3) - float(log_together(log_ttft, log_tpot, output_tokens - 1))
            self._first_token(pending, log_ttft + missed, now)
            if output_tokens > 1:
                self._later_tokens(pending, log_tpot + missed, now)
        self._send(row)

    def _first_token(self, pending: _Pending, log_ttft: float, now: float) -> None:
        residual = log_ttft - pending.log_ttft
        if pending.slot >= 0:
            self.corrections.observe(pending.slot, residual, math.nan, now)
            self._slots[SEEN, pending.slot] += 1
            if self.drift.observe(pending.slot, residual):
                self.corrections.hurry(pending.slot)
                self.forgotten.append((int(pending.row["endpoint"][0]), now))
                del self.forgotten[:-MAX_FORGOTTEN]
        if self.online is not None:
            self.online.learn(pending.row["features"][0], residual + pending.online[0], math.nan)
        predicted = pending.log_ttft + pending.correction
        if math.isfinite(predicted):
            self.spread = math.sqrt(self.spread**2 + 0.01 * (min(abs(log_ttft - predicted), 3.0) ** 2 - self.spread**2))
        expected = self._baseline.predict(pending.at_pick), self._before.predict(pending.before_pick)
        self.guard.observe(Outcome(pending.by, log_ttft, predicted, *expected, pending.weight), now)
        self._baseline.learn(pending.at_pick, log_ttft)
        self._before.learn(pending.before_pick, log_ttft)

    def _later_tokens(self, pending: _Pending, log_tpot: float, now: float) -> None:
        slower = log_tpot - pending.log_tpot
        if math.isfinite(slower):
            self.corrections.observe(pending.slot, math.nan, slower, now)
            if self.online is not None:
                self.online.learn(pending.row["features"][0], math.nan, slower + pending.online[1])

    def _send(self, row: Experience) -> None:
        if len(self._outbox) >= MAX_OUTBOX:
            self._outbox.popleft()
            self.overflowed += 1
        self._outbox.append(row)

    def dropped(self, flight: int) -> None:
        """The request was not served by the endpoint picked: it teaches nothing."""
        self._pending.pop(flight, None)

    def left(self, slot: int) -> None:
        """The endpoint of this slot is gone."""
        if slot < self._slots.shape[1]:
            self._slots[:, slot] = _NOTHING
        for keeper in (self.corrections, self.drift, self.pressure, self._recent):
            keeper.clear(slot)
        for pending in self._pending.values():
            if pending.slot == slot:
                pending.slot = -1

    def tick(self, now: float) -> None:
        """About once a second: corrections fade, the guard looks at the queues."""
        self.corrections.settle(now)
        if self._queue is not None:
            self.guard.pool(now, self._queue.wait_ms, float(np.median(self._queue.alone_ms)))

    def drain(self, now: float) -> Experience:
        """All rows finished since the last call, in order of their ends."""
        if not self._outbox:
            return np.empty(0, EXPERIENCE)
        rows = joined(self._outbox)
        self._outbox.clear()
        self.guard.inspect(len(rows), int(np.count_nonzero(~sane(rows))), now)
        return rows

    def adopt(self, model: Model, now: float, *, proven: bool = False) -> None:
        """Predict with this model from now on; corrections start anew from the last rows of each endpoint, or else
        from what it brings; beside online trees they go on."""
        self.model = model
        self._ready = ready(model) if self.online is None else None
        if self.online is not None:
            self.guard.model(True, now, proven=proven)
            return
        fresh = dict(self._recent.corrections(model))
        for slot, number in enumerate(self._slots[NUMBER].tolist()):
            if number:
                known = fresh.get(slot) or model.corrections.get(int(number)) or NOT_CORRECTED
                self.corrections.restart(slot, known.log_ttft, known.log_tpot, known.rows, now)
        self.guard.model(True, now, proven=proven)

    def saw_queue(self, judgement: Judgement) -> None:
        """Remember how long each endpoint's line is, for the guard's next look."""
        self._queue = judgement

    @property
    def skipped(self) -> int:
        """Picks that were not drawn to be learned from."""
        return self.thinning.skipped

    def number(self, slot: int) -> int:
        """Of the endpoint in this slot: never used twice."""
        if not self._slots[NUMBER, slot]:
            self._numbers += 1
            self._slots[NUMBER, slot] = self._numbers
        return int(self._slots[NUMBER, slot])
