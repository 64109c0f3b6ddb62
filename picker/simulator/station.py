"""One simulated engine on the virtual clock of a cluster.

A station is always idle, in one scheduled step, or in a *run*: steps that are sure to be alike but for contexts growing
by one token (`Engine.decode_steps`). A run is one event however long it is. Its steps are played when somebody looks
(`settle`), and it is cut short when a request arrives, so that no observer can tell it from single steps.
"""

import math
from collections import deque
from copy import copy

from picker.engines.metrics import EngineSample
from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, KvEvent, Sequence, Step

IDLE = math.inf


class Station:
    """An engine, what it is doing now, and until when. Times in ms; `now` never goes back."""

    __slots__ = (
        "_begun_ms",
        "_first_ms",
        "_growth_ms",
        "_played",
        "_step",
        "_steps",
        "address",
        "alive",
        "busy_ms",
        "ends_ms",
        "engine",
        "news",
        "row",
    )

    def __init__(self, address: str, engine: Engine) -> None:
        self.address = address
        self.engine = engine
        self.row = engine.step_time
        """Its step time at full speed."""
        self.alive = True
        """False once crashed."""
        self.ends_ms = IDLE
        """When `end` is due; IDLE when there is nothing to do."""
        self.busy_ms = 0.0
        """Time spent in steps and runs that have ended."""
        self.news: deque[tuple[float, KvEvent]] = deque()
        """KV events about prompts, with the time at which the step ended that brought them. Taken by the caller."""
        self._step: Step | None = None
        self._begun_ms = 0.0
        # A run: its steps, how many of them were played, duration of the first and growth from one to the next.
        self._steps = self._played = 0
        self._first_ms = self._growth_ms = 0.0

    def fork(self) -> "Station":
        """This station as it would go on, with `Engine.fork`; this one is left as it is."""
        other = copy(self)
        other.engine, sequences = self.engine.fork()
        other.news = deque()
        if self._step is not None:
            here = [sequences[sequence.request.id] for sequence in self._step.emitting if sequence.live]
            other._step = self._step._replace(emitting=tuple(here), prefills=(), preempted=(), events=())
        return other

    def submit(self, request: EngineRequest, now: float, *, ahead: bool = False) -> Sequence:
        """Hand a request to the engine; `ends_ms` may change. Raises Refused."""
        first = ahead or not self.engine.waiting
        sequence = self.engine.submit(request, ahead=ahead)
        if self.ends_ms == IDLE:
            self._begin(now)
        elif first:
            # Behind a head of queue that does not fit, a newcomer changes nothing.
            self.cut(now)
        return sequence

    def withdraw(self, request_id: str, now: float) -> Sequence | None:
        """Take a request away (`Engine.withdraw`); `ends_ms` may change."""
        self.cut(now)
        return self.engine.withdraw(request_id)

    def bring(self, request: EngineRequest, tokens: int, now: float) -> bool:
        """KV came from another engine (`Engine.bring`); `ends_ms` may change."""
        self.cut(now)
        return self.engine.bring(request, tokens)

    def settle(self, now: float) -> None:
        """Play the steps of a run that have ended by `now`; who finishes is left to `end`."""
        ended = self._ended_by(now)
        if ended > self._played:
            self._play(ended)

    def sample(self, now: float) -> EngineSample:
        """What the engine's metrics page says now. Nothing is played for it."""
        engine, counters = self.engine, self.engine.counters
        ahead = max(0, self._ended_by(now) - self._played)
        return EngineSample(
            running=len(engine.running),
            waiting=len(engine.waiting),
            kv_usage=engine.usage_after(ahead) if ahead else engine.kv_usage,
            block_size=engine.limits.block_size,
            num_blocks=engine.pool.size,
            prefix_queries=counters.prefix_queries,
            prefix_hits=counters.prefix_hits,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens + ahead * len(engine.running),
        )

    def cut(self, now: float) -> None:
        """End a run with the step that is in progress at `now`; `ends_ms` may change. A single step goes on."""
        if self._steps - self._played < 2:
            return
        self.settle(now)
        if self._steps - self._played > 1:
            self._steps = self._played + (self._end_ms(self._played) < now)
            self.ends_ms = self._end_ms(self._steps)

    def end(self) -> list[Sequence]:
        """The step or run is over, at `ends_ms`: who got a token in its last step (in a run, only who finished).
        Begins the next one."""
        now = self.ends_ms
        if self._step is not None:
            step, self._step = self._step, None
            emitted = self.engine.complete(step)
            self.news.extend((now, event) for event in step.events)
        else:
            emitted = self._play(self._steps) if self._steps > self._played else []
        self.busy_ms += now - self._begun_ms
        self._begin(now)
        return emitted

    def crash(self) -> None:
        """Everything is lost; the engine is never used again."""
        if self._played:
            self.busy_ms += self._end_ms(self._played) - self._begun_ms
        self.alive = False
        self.ends_ms = IDLE
        self._steps = self._played = 0
        self._step = None
        self.news.clear()

    def _begin(self, now: float) -> None:
        engine = self.engine
        self._begun_ms = now
        self._played = 0
        self._steps = engine.decode_steps() if engine.running else 0
        if self._steps > 1:
            self._first_ms, self._growth_ms = engine.decode_ms()
            self.ends_ms = self._end_ms(self._steps)
            return
        self._steps = 0
        self._step = engine.schedule()
        self.ends_ms = IDLE if self._step is None else now + self._step.duration_ms

    def _play(self, until: int) -> list[Sequence]:
        """Play the run up to and with this step."""
        played = self._played
        finished, evicted = self.engine.decode(until - played)
        self.news.extend((self._end_ms(played + step), event) for step, event in evicted)
        self._played = until
        return finished

    def _end_ms(self, step: int) -> float:
        """When so many steps of the run have ended. The same however often one looks in between."""
        return self._begun_ms + step * (self._first_ms + self._growth_ms * (step - 1) / 2)

    def _ended_by(self, now: float) -> int:
        """Steps of the run that have ended by `now`, the last one left out."""
        span, last = now - self._begun_ms, self._steps - 1
        if last < 1 or span < self._first_ms:
            return 0
        # The root of `_end_ms`, in the form that bears a growth of 0; rounding is made up for below.
        half = self._first_ms - self._growth_ms / 2
        steps = int(min(2 * span / (half + math.sqrt(max(0.0, half * half + 2 * self._growth_ms * span))), last))
        while steps and self._end_ms(steps) > now:
            steps -= 1
        while steps < last and self._end_ms(steps + 1) <= now:
            steps += 1
        return steps
