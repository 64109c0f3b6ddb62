"""How long a newcomer would stand in the line before an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.handoff.line import Line
from picker.stages.step_model import StepModel

MODEL = StepModel(fixed_ms=10.0, decode_ms=0.0, context_ms=0.0, prefill_ms=0.1)
"""1,990 tokens take 209 ms."""


def line(model: StepModel = MODEL) -> Line:
    made = Line()
    made.price(model, [])
    return made


def played(made: Line, prompts: list[int], *, slower: float) -> float:
    """The engine takes prompts one after another, so many times slower than its model says; when it is done."""
    now = 0.0
    for number, tokens in enumerate(prompts):
        made.join(number, now, tokens=tokens)
    for number, tokens in enumerate(prompts):
        now += slower * (10.0 * max(1, -(-tokens // 2048)) + 0.1 * tokens) / 1e3
        made.begin(number, now)
    return now


def test_nobody_waits_at_an_engine_without_a_line() -> None:
    assert line().wait_ms(5.0) == 0.0


def test_a_newcomer_waits_for_all_before_it() -> None:
    made = line()
    made.join("one", 0.0, tokens=1990)
    made.join("other", 0.0, tokens=990)
    assert made.wait_ms(0.0) == pytest.approx(209 + 109)


def test_prefill_stands_beside_the_decodes_of_its_steps() -> None:
    made = line()
    made.price(StepModel(fixed_ms=10.0, decode_ms=5.0, context_ms=0.0, prefill_ms=0.1), [100.0, 100.0])
    made.join("one", 0.0, tokens=1990)
    assert made.wait_ms(0.0) == pytest.approx(219)


def test_what_is_under_way_is_nearly_over() -> None:
    made = line()
    made.join("one", 0.0, tokens=1990)
    before, after = made.wait_ms(0.0), made.wait_ms(0.1)
    assert after < before - 90


def test_a_late_prompt_is_expected_to_be_as_late_again() -> None:
    made = line()
    made.join("one", 0.0, tokens=1990)
    assert made.wait_ms(20.0) > 10_000


def test_who_began_or_went_away_is_waited_for_no_more() -> None:
    made = line()
    made.join("one", 0.0, tokens=1990)
    made.join("other", 0.0, tokens=1990)
    made.begin("one", 0.2)
    made.leave("other", 0.2)
    assert (len(made), made.wait_ms(0.3)) == (0, 0.0)


def test_one_who_goes_away_teaches_nothing() -> None:
    made = line()
    made.join("one", 0.0, tokens=100)
    made.leave("one", 60.0)
    assert made.wrong == pytest.approx(1.0)


def test_bytes_are_tokens_as_they_were_in_prompts_that_began() -> None:
    made = line()
    for number in range(50):
        made.join(number, 0.3 * number, size=1990 * 8)
        made.begin(number, 0.3 * number + 0.209, tokens=1990)
    made.join("new", 100.0, size=990 * 8)
    assert made.wait_ms(100.0) == pytest.approx(109, rel=0.05)


def test_others_wait_there_with_prompts_of_the_usual_length() -> None:
    made = line()
    played(made, [1990] * 20, slower=1.0)
    assert made.wait_ms(9.0, others=3) == pytest.approx(3 * 209, rel=0.02)


def test_without_a_step_model_nothing_is_known() -> None:
    made = Line()
    made.join("one", 0.0, tokens=1990)
    assert made.wait_ms(1.0) == 0.0


@given(st.floats(0.2, 5.0), st.lists(st.integers(1, 20_000), min_size=40, max_size=60))
def test_an_engine_that_is_not_as_fast_as_its_model_says_is_found_out(slower: float, prompts: list[int]) -> None:
    made = line()
    done = played(made, [5_000] * 100 + prompts, slower=slower)
    made.join("new", done, tokens=10_000)
    assert made.wait_ms(done) == pytest.approx(slower * 1_050, rel=0.15)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "begin", "leave"]),
            st.integers(0, 5),
            st.floats(0, 1e4),
            st.integers(0, 10**7),
        )
    )
)
def test_whatever_comes_the_wait_is_a_number_and_nobody_is_left_over(
    said: list[tuple[str, int, float, int]],
) -> None:
    made, now = line(), 0.0
    for what, who, passed, tokens in said:
        now += passed
        if what == "join":
            made.join(who, now, size=tokens)
        elif what == "begin":
            made.begin(who, now, tokens)
        else:
            made.leave(who, now)
        assert 0.0 <= made.wait_ms(now, others=1) < float("inf")
    for who in range(6):
        made.leave(who, now)
    assert len(made) == 0
