"""When a new model is due, and whether it may take over. Models here are (version, rows trained on)."""

from itertools import pairwise

import numpy as np
from experience_rows import rows
from hypothesis import given
from hypothesis import strategies as st

from picker.engines.rows import Column
from picker.learning.experience import Experience
from picker.learning.trainer import Cadence, Trainer
from picker.learning.window import Window

Toy = tuple[int, int]


def fit(rows: Experience, version: int) -> Toy | None:
    return version, len(rows)


def flat(model: Toy, rows: Experience) -> Column:
    return np.ones(len(rows))


def seventh_is_best(model: Toy, rows: Experience) -> Column:
    return np.full(len(rows), 1.0 if model[0] == 7 else 9.0)


def test_the_first_model_comes_with_the_fiftieth_row() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(49))
    assert trainer.poll(now=0.0) is None
    trainer.add(rows(1, 49))
    assert trainer.poll(now=0.1) == (1, 50)


def test_while_rows_are_few_a_fifth_more_of_them_is_enough_but_never_twice_a_second() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(50))
    trainer.poll(now=0.0)
    trainer.add(rows(10))
    assert trainer.poll(now=0.9) is None
    assert trainer.poll(now=1.0) == (2, 60)


def test_later_a_round_comes_every_five_seconds_of_traffic() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(400))
    trainer.poll(now=0.0)
    trainer.add(rows(19))
    assert trainer.poll(now=60.0) is None, "nineteen rows are no traffic"
    trainer.add(rows(1))
    assert trainer.poll(now=60.1) is not None
    trainer.add(rows(21))
    assert trainer.poll(now=65.0) is None
    assert trainer.poll(now=65.2) is not None


def test_a_round_waits_until_enough_is_new_beside_what_is_known() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(4000))
    trainer.poll(now=0.0)
    trainer.add(rows(199))
    assert trainer.poll(now=60.0) is None
    trainer.add(rows(1))
    assert trainer.poll(now=61.0) is not None


def test_every_round_trains_on_the_whole_window_but_for_what_judges_it() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(100))
    assert trainer.poll(now=0.0) == (1, 100)
    trainer.add(rows(50, 100))
    assert trainer.poll(now=5.0) == (2, 140)
    trainer.add(rows(20, 150))
    assert trainer.poll(now=10.0) == (3, 170), "four rows are too few to judge by"
    assert trainer.window.rows()["at_s"].tolist() == list(range(170))


def test_a_model_that_is_worse_on_rows_that_neither_saw_is_rejected() -> None:
    seen: list[list[float]] = []

    def third_is_bad(model: Toy, rows: Experience) -> Column:
        seen.append(rows["at_s"].tolist())
        return np.full(len(rows), 2.0 if model[0] == 3 else 1.0)

    trainer = Trainer(fit, third_is_bad)
    given: list[Toy | None] = []
    for i in range(4):
        trainer.add(rows(50, 50 * i))
        given.append(trainer.poll(now=5.0 * i))
    assert [model and model[0] for model in given] == [1, 2, None, 4]
    assert trainer.counts.rejected == 1
    assert seen[0] == [54.0 + 5 * i for i in range(10)]


def test_a_model_whose_error_is_no_number_is_rejected() -> None:
    trainer = Trainer(fit, lambda model, rows: np.full(len(rows), np.nan if model[0] == 2 else 1.0))
    trainer.add(rows(50))
    trainer.poll(now=0.0)
    trainer.add(rows(50))
    assert trainer.poll(now=5.0) is None
    assert trainer.counts.rejected == 1


def test_a_round_that_gives_no_model_is_counted_and_tried_again_with_more_rows() -> None:
    trainer = Trainer(lambda rows, version: fit(rows, version) if len(rows) > 60 else None, flat)
    trainer.add(rows(50))
    assert trainer.poll(now=0.0) is None
    trainer.add(rows(50))
    assert trainer.poll(now=1.0) == (2, 100)
    assert trainer.counts.failed == 1


def test_insane_rows_are_dropped_and_counted() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(100, ttft_ms=np.where(np.arange(100) % 4 == 0, np.nan, 100.0)))
    assert (trainer.counts.rows, trainer.counts.insane) == (75, 25)
    assert trainer.poll(now=0.0) == (1, 75)


def test_what_a_changed_endpoint_did_before_is_trained_on_no_more() -> None:
    trainer = Trainer(fit, flat)
    trainer.add(rows(100, endpoint=np.arange(100) % 2))
    trainer.forget(endpoint=1, before_s=1000)
    assert trainer.poll(now=0.0) == (1, 50)


def test_a_trainer_goes_on_from_the_rows_and_the_model_of_the_one_before() -> None:
    window = Window()
    window.add(rows(80))
    trainer = Trainer(fit, seventh_is_best, window, model=(7, 80), version=7)
    assert trainer.poll(now=0.0) == (8, 80), "rows that both know judge nobody"
    other = Trainer(fit, seventh_is_best, window, model=(7, 80), version=7)
    other.add(rows(50, 80))
    assert other.poll(now=0.0) is None


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 3)), max_size=60))
def test_rounds_are_apart_versions_rise_and_no_row_is_lost(arrivals: list[tuple[int, float]]) -> None:
    cadence = Cadence()
    trainer = Trainer(fit, flat, cadence=cadence)
    now, sent, rounds = 0.0, 0, list[tuple[float, Toy]]()
    for count, gap in arrivals:
        now += gap
        trainer.add(rows(count, sent))
        sent += count
        if (model := trainer.poll(now)) is not None:
            rounds.append((now, model))
    assert [model[0] for _, model in rounds] == list(range(1, len(rounds) + 1))
    assert all(later[0] - sooner[0] >= cadence.soonest_s for sooner, later in pairwise(rounds))
    assert trainer.counts.rows == sent
