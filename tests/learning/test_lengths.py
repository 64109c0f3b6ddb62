"""How long an answer will be: as those to prompts that began alike, to this model, or to anybody."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning import lengths as module
from picker.learning.lengths import ENOUGH, FIRST_GUESS, GROUP_BLOCKS, OutputLengths
from picker.requests.request import EMPTY_CHAIN, Request


def asked(model: str = "m", group: int | None = None, tail: int = 0, max_tokens: int | None = None) -> Request:
    """A prompt that begins with a group's blocks and goes on in its own way."""
    chain = EMPTY_CHAIN
    if group is not None:
        shared = np.uint64(group * 1000) + np.arange(GROUP_BLOCKS, dtype=np.uint64)
        chain = np.concatenate((shared, np.array([10**9 + tail], np.uint64)))
    return Request(model=model, chain=chain, max_tokens=max_tokens)


def told(lengths: OutputLengths, request: Request, tokens: float, times: int = 2 * ENOUGH) -> None:
    for _ in range(times):
        lengths.learn(request, tokens)


def test_before_any_answer_a_usual_one_is_expected() -> None:
    assert OutputLengths().mean(asked()) == FIRST_GUESS


def test_prompts_that_begin_alike_are_answered_alike() -> None:
    lengths = OutputLengths()
    told(lengths, asked(group=1), 1000)
    told(lengths, asked(group=2), 10)
    assert lengths.mean(asked(group=1, tail=77)) == pytest.approx(1000)
    assert lengths.mean(asked(group=2, tail=78)) == pytest.approx(10)


def test_an_unknown_group_is_answered_as_its_model_usually_does() -> None:
    lengths = OutputLengths()
    told(lengths, asked("terse"), 20)
    told(lengths, asked("chatty"), 800)
    assert lengths.mean(asked("terse", group=5)) == pytest.approx(20)
    assert lengths.mean(asked("chatty", group=5)) == pytest.approx(800)


def test_an_unknown_model_is_taken_to_answer_as_all_do() -> None:
    lengths = OutputLengths()
    told(lengths, asked("terse"), 20)
    told(lengths, asked("chatty"), 800)
    assert 20 < lengths.mean(asked("other")) < 800


def test_a_few_answers_do_not_speak_for_a_group() -> None:
    lengths = OutputLengths()
    told(lengths, asked(group=1), 100, times=50)
    told(lengths, asked(group=2), 4000, times=ENOUGH - 1)
    few = lengths.mean(asked(group=2))
    told(lengths, asked(group=2), 4000, times=1)
    assert few < 2000
    assert lengths.mean(asked(group=2)) == pytest.approx(4000)


def test_the_clients_own_limit_caps_it() -> None:
    lengths = OutputLengths()
    assert lengths.mean(asked(max_tokens=16)) == 16
    told(lengths, asked(group=1), 1000)
    assert lengths.mean(asked(group=1, max_tokens=64)) == 64


def test_the_last_answers_count_most() -> None:
    lengths = OutputLengths()
    told(lengths, asked(), 1000, times=200)
    told(lengths, asked(), 100, times=100)
    assert lengths.mean(asked()) < 150


def test_groups_least_recently_learned_from_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 4)
    lengths = OutputLengths()
    told(lengths, asked(group=1), 1000)
    sizes = []
    for other in range(2, 9):
        told(lengths, asked(group=other), 10)
        sizes.append(len(pickle.dumps(lengths)))
    assert sizes[-1] <= 1.05 * sizes[3]
    assert lengths.mean(asked(group=8)) == pytest.approx(10)
    assert lengths.mean(asked(group=1)) < 900, "as the model's others"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6)), max_size=60), st.integers(1, 10**6) | st.none())
def test_whatever_was_seen_an_answer_is_expected_to_be_finite_and_within_its_limit(
    answers: list[tuple[int, int]], max_tokens: int | None
) -> None:
    lengths = OutputLengths()
    for group, tokens in answers:
        lengths.learn(asked(group=group), float(tokens))
    assert 0 <= lengths.mean(asked(group=1, max_tokens=max_tokens)) <= (max_tokens or 10**6)
