"""Length stages: short and long requests on different engines, where that is worth it.

**Formula.** A plan gives every engine a range of lengths. A request's length is its prompt plus the answer to be
expected, or the prompt alone where running requests move on as they grow. Its candidates are the engines of its stage,
and `within` ranks them. They are others instead where these cost it, and everybody else, at least a tenth less in
milliseconds (`picker/policies/stage_places.py`): engines of the neighbouring stages, when its own is hot, and engines
of any stage that hold more of its prefix. All further engines follow as fallbacks.

**Plan.** Made twice a minute, off the pick's path, from the lengths of what ended and from step times: those fitted to
this pool's own answers, or given. Boundaries follow the load in between. A plan must save 5 % of the time per token by
more than chance, and is dropped where that time grows instead; without a plan there are no stages, and `within` decides
alone, pick for pick. docs/stages.md has the whole story.

**Parameters.**

- `within` (multiplicative): who ranks the engines of a stage: `multiplicative` or `learned`.
- `migration` (False): something else moves running requests to the next stage when they outgrow theirs.
- `leastGain` (0.05): the share of the time per token that a plan must be expected to save.
- `moveMs` (50.0): what being moved costs a request; with `migration`.
- `stages` (()): the stages themselves, as `0-512:1` and `512-:3`: one engine for lengths up to 512 tokens to three
  for longer ones. They hold from the start, whatever they bring; nothing is planned.
- `steps` ({}): step times by hardware label (empty: engines without one), which are not fitted then: a row of the
  step-time table, or `fixedMs`, `decodeMs`, `contextMs`, `prefillMs` and the rest of picker/stages/step_model.py.

**Limits.** Gains come from unlike lengths in one batch being slow, which differs by kernel, and from long prompts being
out of the way of short ones; with like lengths there are none. Where step times are fitted, so is the price of unlike
lengths, roughly. Pools of unlike engines are planned by their step times, in one line of KV size.

**Source.** CascadeInfer (arXiv 2512.19179), without its changes to the engine.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, hit_tokens=[1600, 800, 0], queued_tokens=[0, 0, 200], batch=[900, 2, 0])
    >>> Staged(Params(), np.random.default_rng(0)).score(request, rows, now=0.0).cost
    array([ 901., 2400., 1800.])
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from picker.engines.metrics import LoraState
from picker.engines.rows import Column, Rows
from picker.policies import learned, multiplicative, stage_steps
from picker.policies.policy import Facts, Learns, Member, Policy, Scores
from picker.policies.stage_places import NOBODY, Choice, Places, places_of
from picker.policies.stage_steps import Hardware, Row, Steps
from picker.policies.stage_watch import Watch
from picker.requests.request import Request
from picker.stages import fixed
from picker.stages.refine import Boundary, planned, refined
from picker.stages.replan import Look, Plan, ReplanSettings, decide, is_due, unstaged
from picker.stages.step_model import StepModel

REFINE_S = 5.0
HARDWARE_LABELS = ("picker.dev/hardware", "nvidia.com/gpu.product")


class Params(msgspec.Struct, frozen=True, rename="camel"):
    within: Literal["multiplicative", "learned"] = "multiplicative"
    migration: bool = False
    least_gain: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    move_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 50.0
    stages: Annotated[tuple[str, ...], msgspec.Meta(max_length=fixed.MOST_STAGES)] = ()
    steps: Annotated[dict[Hardware, Steps | Row], msgspec.Meta(max_length=64)] = {}

    def __post_init__(self) -> None:
        fixed.read(self.stages)


class Staged:
    """The policy: a plan, the ranking within a stage, and what is seen of the picks."""

    name = "staged"

    def __init__(self, params: Params, rng: np.random.Generator) -> None:
        self.inner: Policy = (
            learned.Learned(learned.Params(), rng)
            if params.within == "learned"
            else multiplicative.Multiplicative(multiplicative.Params())
        )
        self.plan: Plan = unstaged((), "nothing seen yet")
        self.boundaries: tuple[Boundary, ...] = ()
        self.models: Mapping[int, StepModel] = {}
        self._params = params
        self._laid_down = fixed.read(params.stages)
        self._settings = ReplanSettings(least_gain=params.least_gain, move_ms=params.move_ms)
        self._watch = Watch()
        self._members: dict[int, str] = {}
        self.rows = stage_steps.rows(params.steps)
        """Of the step-time table that it asks to `know`, by hardware."""
        self._known = stage_steps.given(params.steps)
        self._places: Places | None = None
        self._look, self._planning = Look(), False
        self._refined_at = -math.inf
        self._capacity = 0

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        places = self._places
        if places is None or not len(rows):
            return self.inner.score(request, rows, now)
        output = self._watch.outputs.mean(request)
        choice = places.choose(request.prompt_tokens, self._length(request, output), output, rows)
        if choice is None:
            return self.inner.score(request, rows, now)
        said = self.inner.score(request, rows.take(choice.positions), now)
        return _widened(said, choice)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        self.inner.picked(request, rows, row, now)

    # -- what it is told --------------------------------------------------------------------------------------------

    def meet(self, members: Mapping[int, Member], lora: Callable[[int], LoraState | None]) -> None:
        self._members = {slot: _hardware(member) for slot, member in members.items()}

    def know(self, models: Mapping[str, StepModel]) -> None:
        """Step models by the name of the hardware, as labels tell it; these are not fitted."""
        self._known |= models

    def ensure(self, capacity: int) -> None:
        self._capacity = max(self._capacity, capacity)
        self._watch.ensure(capacity)
        if isinstance(self.inner, Learns):
            self.inner.ensure(capacity)

    def reserved(
        self, flight: int, request: Request, rows: Rows, row: int, scores: Scores, propensity: float, now: float
    ) -> None:
        length = None
        if not self._params.migration:
            length = self._length(request, self._watch.outputs.mean(request))
        self._watch.placed(flight, request, rows, row, length)
        if not isinstance(self.inner, Learns):
            return
        memo = scores.memo
        if not isinstance(memo, _Memo):
            self.inner.reserved(flight, request, rows, row, scores, propensity, now)
            return
        at = np.flatnonzero(memo.positions == row)
        if len(at):
            narrow = rows.take(memo.positions)
            self.inner.reserved(flight, request, narrow, int(at[0]), memo.said, propensity, now)

    def first_byte(self, flight: int, ttft_s: float, now: float) -> None:
        self._watch.first_byte(flight, ttft_s)
        if isinstance(self.inner, Learns):
            self.inner.first_byte(flight, ttft_s, now)

    def ended(self, flight: int, facts: Facts | None, now: float) -> None:
        self._watch.ended(flight, facts)
        if isinstance(self.inner, Learns):
            self.inner.ended(flight, facts, now)

    def left(self, slot: int) -> None:
        self._watch.left(slot)
        if self._places is not None and slot < len(self._places.stage_of):
            self._places.stage_of[slot] = NOBODY
        self._look = Look()
        if isinstance(self.inner, Learns):
            self.inner.left(slot)

    # -- plans, about once a second ---------------------------------------------------------------------------------

    def due(self, now: float) -> Callable[[], object] | None:
        """Fade what was seen and refine boundaries; what there is to think about, if anything, as a pure call that
        another thread may make. Its answer is for `adopt`."""
        watch = self._watch
        watch.lengths.fade(now)
        self._refine(now)
        engines = frozenset(self._members)
        traffic = watch.lengths.traffic()
        if self._planning or not is_due(self._look, traffic, engines, now, self._settings):
            return None
        self._look = Look(now, traffic, engines)
        self._planning = True
        lengths, current, settings = watch.lengths.copy(), self.plan, self._settings
        models = watch.models(self._members, self._known)
        laid_down = self._laid_down

        def think() -> Thought:
            if laid_down:
                known = {slot: model or fixed.UNKNOWN for slot, model in models.items()}
                return Thought(fixed.lay(laid_down, sorted(models), current), known)
            complete = {slot: model for slot, model in models.items() if model is not None}
            if len(complete) < len(models):
                return Thought(unstaged(sorted(models), "step times are not known yet"), {})
            return Thought(decide(current, lengths, complete, settings), complete)

        return think

    def adopt(self, thought: object, now: float) -> None:
        """The plan that `due`'s call came to holds from now on."""
        self._planning = False
        if not isinstance(thought, Thought):
            return
        before, plan = self.plan, thought.plan
        objection = "" if plan.fixed else self._watch.promise.objection(plan, now, self._watch.requests)
        if objection:
            plan = unstaged(sorted(self._members), objection, plan.unstaged_ms, plan.load)
        elif not plan.engines <= self._members.keys():
            plan = unstaged(sorted(self._members), "engines left while it was planned")
        self.plan = plan
        self.models = thought.models
        self._watch.promise.follows(plan.staged, self._watch.requests)
        if not plan.staged:
            self._places, self.boundaries = None, ()
            return
        if plan.layout is None or before.layout is None or plan.layout.cuts != before.layout.cuts:
            self.boundaries = tuple(planned(stage.low) for stage in plan.stages[1:])
        self._places = places_of(
            plan,
            [boundary.tokens for boundary in self.boundaries],
            thought.models,
            self._watch.classes(self._members),
            self._capacity,
        )

    @property
    def moves(self) -> bool:
        """Whether running requests are counted on to move on."""
        return self._params.migration

    @property
    def bounds(self) -> tuple[float, ...]:
        """Lengths in tokens between the stages, as they are now."""
        return tuple(boundary.tokens for boundary in self.boundaries)

    @property
    def outlook(self) -> str:
        return self.plan.reason

    def _refine(self, now: float) -> None:
        """Loads are relative to the plan's: it may mean stages to be unlike."""
        if self._places is None or self.plan.fixed or now - self._refined_at < REFINE_S:
            return
        self._refined_at = now
        loads = []
        for stage in self.plan.stages:
            here = sum(self._watch.requests_on(slot) for slot in stage.engines)
            loads.append(here / len(stage.engines) / max(stage.requests, 0.05))
        self.boundaries = refined(self.boundaries, loads)
        self._places = replace(self._places, bounds=tuple(boundary.tokens for boundary in self.boundaries))

    def _length(self, request: Request, output: float) -> float:
        return request.prompt_tokens + (0.0 if self._params.migration else output)


@dataclass(frozen=True, slots=True)
class Thought:
    """A plan, and the step models by slot that it was made of."""

    plan: Plan
    models: Mapping[int, StepModel]


@dataclass(frozen=True, slots=True, eq=False)
class _Memo:
    """What `within` said of the rows it was shown."""

    positions: NDArray[np.intp]
    said: Scores


def _widened(said: Scores, choice: Choice) -> Scores:
    """The scores of some rows as scores of all: the others come after them, by their cost in ms."""
    finite = said.cost[np.isfinite(said.cost)]
    worst = float(finite.max(initial=0.0))
    cost = worst + max(1.0, abs(worst) * 1e-9) + choice.ms
    cost[choice.positions] = said.cost
    propensity = None
    if said.propensity is not None:
        propensity = np.zeros(len(cost))
        propensity[choice.positions] = said.propensity
    by, because = (said.by, said.because) if said.by else ("stage", choice.where)
    return Scores(cost, Reasons(said.reasons, choice), propensity, by, because, _Memo(choice.positions, said))


@dataclass(frozen=True, slots=True, eq=False)
class Reasons(Mapping[str, Column]):
    """Columns of `within`, inf where it was not asked, and the stages', made when one is looked at."""

    said: Mapping[str, Column]
    choice: Choice

    def __getitem__(self, name: str) -> Column:
        if name == "stage":
            return self.choice.stage
        if name == "stage_ms":
            return self.choice.ms
        column = np.full(len(self.choice.ms), np.inf)
        column[self.choice.positions] = self.said[name]
        return column

    def __iter__(self) -> Iterator[str]:
        yield from ("stage", "stage_ms")
        yield from self.said

    def __len__(self) -> int:
        return len(self.said) + 2


def _hardware(member: Member) -> str:
    return next((member.labels[label] for label in HARDWARE_LABELS if label in member.labels), "")
