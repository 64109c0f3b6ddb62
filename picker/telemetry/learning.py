"""Metrics of the learning loop, and who decided what with what result."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from picker.routing.decisions import Decision
from picker.telemetry.metrics import gauge
from picker.telemetry.tally import Count

RECENT_S = 60.0
"""Answers of so long ago still count in the TTFT of each decider: over one time, for load moves both."""
MOST_RECENT = 4096
NOT_DRAWN = ("", "cold", "out_of_range", "probe")
"""Reasons for who decides that are no draw: what came of those picks compares nobody."""


@dataclass(slots=True)
class LoopState:
    """What the loop between picks and trainer did so far."""

    up: bool = False
    """A trainer runs and has answered."""
    starts: int = 0
    """Trainers started."""
    rows: int = 0
    """Rows of finished picks."""
    skipped: int = 0
    """Picks that are not learned from, since there are more than are worth it."""
    heard: int = 0
    """Rows of other replicas' picks."""
    unread: int = 0
    """The same, but of another version or impossible."""
    waiting: int = 0
    """Rows that no trainer was told yet."""
    overflowed: int = 0
    """Rows that nobody took from the learner in time."""
    dropped: int = 0
    """Rows that no trainer was ever told, or that trainers died of."""
    insane: int = 0
    """Rows that nothing can be learned from."""
    rounds: int = 0
    rejected: int = 0
    """Models that were worse than the one in use, on rows that neither had seen."""
    failed: int = 0
    """Rounds that gave no model."""
    round_s: float = 0.0
    """How long the last round took."""
    version: int = 0
    """Of the model in use; 0 is none."""
    adopted_at: float = 0.0
    """When it was taken into use, seconds of the picker's clock."""


class LearningMetrics:
    """Watches a router's picks; the loop writes into `state`."""

    def __init__(self, state: LoopState, clock: Callable[[], float]) -> None:
        self.state = state
        self._clock = clock
        self._picks = Count("picker_learned_picks", "Picks, by who decided and why.", ("by", "because"), 64)
        self._ttft_s: dict[str, deque[tuple[float, float]]] = {}

    def picked(self, decision: Decision) -> None:
        self._picks.add(decision.scores.by, decision.scores.because)

    def ended(self, decision: Decision) -> None:
        ttft_s, by = decision.outcome.ttft_s, decision.scores.by
        if ttft_s is not None and decision.scores.because not in NOT_DRAWN:
            self._ttft_s.setdefault(by, deque(maxlen=MOST_RECENT)).append((self._clock(), ttft_s))

    @property
    def age_s(self) -> float | None:
        """Since the model in use came; None without one."""
        return self._clock() - self.state.adopted_at if self.state.version else None

    def as_json(self) -> dict[str, Any]:
        """For the admin port."""
        facts = asdict(self.state)
        del facts["adopted_at"]
        return {
            **facts,
            "age_s": self.age_s,
            "ttft_ms": self._compared(),
        }

    def _compared(self) -> dict[str, dict[str, float]]:
        """Mean TTFT in ms of the last minute's answers, by decider."""
        since = self._clock() - RECENT_S
        recent = {by: [ttft_s for at, ttft_s in told if at >= since] for by, told in self._ttft_s.items()}
        return {by: {"mean": 1e3 * sum(t) / len(t), "answers": len(t)} for by, t in recent.items() if t}

    def collect(self) -> Iterator[Metric]:
        state = self.state
        yield gauge("picker_trainer_up", "A trainer runs and has answered.", state.up)
        yield gauge("picker_trainer_round_seconds", "How long the last round of training took.", state.round_s)
        yield gauge("picker_learning_waiting_rows", "Rows that no trainer was told yet.", state.waiting)
        yield gauge("picker_model_version", "Version of the model in use; 0 is none.", state.version)
        yield gauge("picker_model_age_seconds", "Time since the model in use came.", self.age_s or 0.0)
        for name, help, value in (
            ("picker_trainer_starts", "Trainers started: one, and one for each that died.", state.starts),
            ("picker_learning_rows", "Rows of finished picks.", state.rows),
            ("picker_learning_skipped_picks", "Picks beyond as many as are learned from.", state.skipped),
            ("picker_learning_heard_rows", "Rows of other replicas' picks.", state.heard),
            ("picker_learning_unread_rows", "The same, but of another version or impossible.", state.unread),
            ("picker_learning_insane_rows", "Rows that nothing can be learned from.", state.insane),
            (
                "picker_learning_dropped_rows",
                "Rows never told to a trainer, or that trainers died of.",
                state.dropped + state.overflowed,
            ),
            ("picker_trainer_rounds", "Rounds of training.", state.rounds),
            ("picker_trainer_rejected_models", "Models worse than the one in use, on the latest rows.", state.rejected),
            ("picker_trainer_failed_rounds", "Rounds that gave no model.", state.failed),
        ):
            family = CounterMetricFamily(name, help)
            family.add_metric([], value)
            yield family
        yield from self._picks.collect()
