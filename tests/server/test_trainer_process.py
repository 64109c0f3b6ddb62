"""The trainer process, one turn after the other, without the process."""

import io

import numpy as np
import pytest
from experience_rows import rows
from toy_trainer import begin, encode

from picker.learning.experience import Experience
from picker.learning.store import Arrays, StoreError, pack, unpack
from picker.server.trainer import COUNTS, FORGET, LENGTH, framed, read_frame, take_turns


def turns(*told: Arrays) -> list[Arrays]:
    answered = io.BytesIO()
    asked = io.BytesIO(b"".join(framed(pack(message)) for message in told))
    take_turns(asked, answered, begin, encode, clock=lambda: 5.0)
    answered.seek(0)
    answers: list[Arrays] = []
    while (message := read_frame(answered)) is not None:
        answers.append(unpack(message))
    return answers


def first(count: int, version: int = 0) -> Arrays:
    return {"rows": rows(count), "version": np.array(version)}


def news(given: Experience, *forget: tuple[int, float]) -> Arrays:
    return {"rows": given, "forget": np.array([*forget], FORGET)}


def test_every_turn_is_answered_and_a_round_that_is_due_gives_a_model() -> None:
    nothing, something = turns(first(0), news(rows(3, ttft_ms=30.0)))
    assert "model/mean" not in nothing
    assert something["model/mean"].tolist() == [1, 3, 30.0]


def test_a_new_trainer_learns_from_what_the_one_before_was_told_and_counts_versions_on() -> None:
    (answer,) = turns(first(7, version=41))
    assert answer["model/mean"].tolist() == [42, 7, 100.0]
    assert answer["version"] == 42


def test_rows_that_teach_nothing_are_counted() -> None:
    _, answer = turns(first(0), news(rows(5, propensity=[1, 0, 1, np.nan, 1])))
    assert dict(zip(COUNTS, answer["counts"].tolist(), strict=True))["insane"] == 2


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_a_message_that_is_cut_off_ends_it(cut: int) -> None:
    message = framed(pack(first(0)))
    with pytest.raises(StoreError):
        take_turns(io.BytesIO(message[:-cut]), io.BytesIO(), begin, encode, clock=lambda: 5.0)
    with pytest.raises(StoreError):
        read_frame(io.BytesIO(message[:cut]))


def test_a_length_that_nobody_sends_is_not_waited_for() -> None:
    with pytest.raises(StoreError):
        read_frame(io.BytesIO(LENGTH.pack(0xFFFF_FFFF) + b"x" * 100))
