"""Finished picks of one process in the window of another one's trainer."""

import numpy as np
from experience_rows import rows

from picker.engines.table import HARDWARE, EngineTable
from picker.learning.experience import EXPERIENCE, Experience
from picker.learning.memory import from_arrays, to_arrays
from picker.learning.model import Model
from picker.learning.telling import LAYOUT, MOST_ROWS
from picker.pool.view import Slots
from picker.server.learning_loop import MOST_HEARD, LearningLoop
from picker.server.shared_learning import SharedLearning
from picker.shared.replicas import Finished

KEYS = {11: 0, 22: 1, 33: 2}


class Learner:
    """Numbers the endpoint of slot s as 100 + s, beginning with `first`."""

    def __init__(self, first: int = 100) -> None:
        self.first, self.finished = first, np.empty(0, EXPERIENCE)
        self.overflowed, self.skipped, self.forgotten = 0, 0, list[tuple[int, float]]()

    def number(self, slot: int) -> int:
        return self.first + slot

    def drain(self, now: float) -> Experience:
        drained, self.finished = self.finished, self.finished[:0]
        return drained

    def tick(self, now: float) -> None: ...
    def adopt(self, model: Model, now: float, *, proven: bool) -> None: ...


class Process:
    """One of two that serve the same pool, whose clock is `ahead`; what it tells, `hears` hears."""

    def __init__(self, slots: dict[int, int], first: int, ahead: float = 0.0) -> None:
        self.slots, self.learner, self.table = slots, Learner(first), EngineTable()
        self.table.columns[HARDWARE, list(slots.values())] = first % 7
        self.loop: LearningLoop[Model] = LearningLoop(self.learner, to_arrays, from_arrays, clock=lambda: 50.0 + ahead)
        self.shared = SharedLearning(self.loop, self.learner, self.table, self)
        self.told: list[Finished] = []

    def finished(self, layout: int, slots: Slots, rows: bytes) -> None:
        keys = {slot: key for key, slot in self.slots.items()}
        self.told.append(Finished(layout, np.array([keys[s] for s in slots.tolist()], np.uint64).tobytes(), rows))

    def picked(self, *slots: int, at_s: float = 40.0) -> None:
        """One request on each of these slots is over."""
        made = rows(len(slots))
        made["at_s"], made["endpoint"] = at_s, [self.learner.number(slot) for slot in slots]
        self.learner.finished = np.concatenate((self.learner.finished, made))
        self.loop.collect()


def pair() -> tuple[Process, Process]:
    return Process(KEYS, 100), Process({33: 5, 22: 6, 44: 7}, 201, ahead=1000.0)


def test_a_pick_teaches_the_other_process_under_the_number_class_and_clock_that_it_has_there() -> None:
    one, two = pair()
    one.picked(1, 2)
    for finished in one.told:
        two.shared.hear(finished)
    two.loop.collect()
    taken = two.loop.window.rows()
    assert taken["endpoint"].tolist() == [two.learner.number(6), two.learner.number(5)]
    assert taken["hardware"].tolist() == [201 % 7] * 2
    assert taken["at_s"].tolist() == [1040.0] * 2
    assert taken["ttft_ms"].tolist() == one.loop.window.rows()["ttft_ms"].tolist()
    assert (two.loop.state.heard, two.loop.state.rows) == (2, 0)


def test_what_was_heard_is_not_told_again() -> None:
    one, two = pair()
    one.picked(1, 2)
    two.shared.hear(one.told[0])
    two.loop.collect()
    assert two.told == []


def test_of_endpoints_that_are_not_in_its_pool_it_learns_nothing_and_counts_them() -> None:
    one, two = pair()
    one.picked(0, 1)
    two.shared.hear(one.told[0])
    two.loop.collect()
    assert len(two.loop.window) == 1
    assert two.loop.state.unread == 1


def test_rows_of_another_version_or_length_are_counted_and_left_out() -> None:
    one, two = pair()
    one.picked(1, 2)
    (finished,) = one.told
    two.shared.hear(Finished(LAYOUT ^ 1, finished.of, finished.rows))
    two.shared.hear(Finished(LAYOUT, finished.of, finished.rows[:-1]))
    two.shared.hear(Finished(LAYOUT, b"", b""))
    two.loop.collect()
    assert len(two.loop.window) == 0
    assert two.loop.state.unread == 4


def test_rows_of_an_endpoint_that_left_are_told_to_nobody() -> None:
    one, _ = pair()
    one.slots = {11: 0}
    one.picked(0, 1)
    assert [finished.keys.tolist() for finished in one.told] == [[11]]


def test_many_rows_go_in_batches() -> None:
    one, two = pair()
    one.picked(*[1] * (MOST_ROWS + 1))
    assert [len(finished.keys) for finished in one.told] == [MOST_ROWS, 1]
    for finished in one.told:
        two.shared.hear(finished)
    assert two.loop.state.heard == MOST_ROWS + 1


def test_what_is_heard_between_two_turns_is_bounded_and_the_rest_counted() -> None:
    one, two = pair()
    one.picked(*[1] * (MOST_HEARD + 10))
    for finished in one.told:
        two.shared.hear(finished)
    assert (two.loop.state.heard, two.loop.state.dropped) == (MOST_HEARD, 10)
    two.loop.collect()
    two.shared.hear(one.told[0])
    assert two.loop.state.heard == MOST_HEARD + MOST_ROWS
