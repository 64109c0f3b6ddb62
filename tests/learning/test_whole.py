"""Answers that come whole show one time: it is taken apart into first token and others."""

import numpy as np
import pytest
from experience_rows import learnable

from picker.learning.experience import Experience, sane
from picker.learning.model import Estimate
from picker.learning.training import Parts, errors, estimate_rows, residuals, train
from picker.learning.whole import split

QUICK = Parts(tree_count=20, leaves=7)


def whole(count: int, start: int = 0, tokens: tuple[int, int] = (2, 400)) -> Experience:
    """Answers of 20 ms a request, 100 ms per thousand new tokens and 10 ms for each token after the first."""
    made = learnable(count, start)
    made["whole"], made["output_tokens"] = 1, np.random.default_rng(start).integers(*tokens, count)
    made["ttft_ms"] += (made["output_tokens"] - 1) * made["tpot_ms"]
    made["tpot_ms"] = np.nan
    return made


def errors_of_log(experience: Experience, judged: Experience) -> tuple[float, float]:
    """Mean |log error| of TTFT and TPOT that a model of `experience` makes on answers seen streamed."""
    model = train(experience, 1, QUICK)
    assert model is not None
    ttft, tpot = np.abs(residuals(model, judged)).mean(axis=1)
    return float(ttft), float(tpot)


def test_a_pool_that_never_streams_is_learned_too() -> None:
    assert sane(whole(400)).all()
    ttft, tpot = errors_of_log(whole(400), learnable(200, 1000))
    assert ttft < 0.25
    assert tpot < 0.1


def test_a_few_streamed_answers_among_them_tell_the_parts_apart_better() -> None:
    mixed = np.concatenate((learnable(100), whole(300, 100)))
    ttft, tpot = errors_of_log(mixed, learnable(200, 1000))
    assert ttft < 0.1
    assert tpot < 0.1


def test_whole_answers_do_not_pass_for_slow_first_tokens() -> None:
    streamed, mixed = learnable(200), np.concatenate((learnable(200), whole(200, 200)))
    alone, beside = train(streamed, 1, QUICK), train(mixed, 1, QUICK)
    assert alone is not None
    assert beside is not None
    judged = learnable(50, 1000)
    far = np.abs(estimate_rows(alone, judged).log_ttft - estimate_rows(beside, judged).log_ttft)
    assert far.mean() < 0.1


def test_both_parts_miss_by_the_same_factor() -> None:
    answer = whole(1, tokens=(11, 12))
    answer["ttft_ms"] = 600.0
    came = split(answer, Estimate(np.log([100.0]), np.log([20.0])))
    assert np.exp(came.log_ttft) == pytest.approx([200.0])
    assert np.exp(came.log_tpot) == pytest.approx([40.0])


def test_an_answer_of_one_token_is_a_first_token() -> None:
    answer = whole(1, tokens=(1, 2))
    came = split(answer, Estimate(np.log([100.0]), np.log([20.0])))
    assert np.exp(came.log_ttft) == pytest.approx(answer["ttft_ms"])
    assert np.isnan(came.log_tpot).all()


def test_a_model_is_judged_by_the_whole_time() -> None:
    model = train(whole(400), 1, QUICK)
    assert model is not None
    slower = whole(50, 1000)
    slower["ttft_ms"] *= 2
    assert errors(model, whole(50, 1000)).mean() < 0.15
    assert errors(model, slower).mean() == pytest.approx(np.log(2), abs=0.15)


@pytest.mark.parametrize(
    ("name", "value"), [("output_tokens", 0), ("output_tokens", np.nan), ("tpot_ms", 10.0), ("whole", 2)]
)
def test_what_does_not_fit_together_is_not_sane(name: str, value: float) -> None:
    answer = whole(1)
    answer[name] = value
    assert not sane(answer).any()
