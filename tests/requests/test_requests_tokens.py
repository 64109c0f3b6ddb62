import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.requests.tokens import DEFAULT_RATIO, Ratios


def test_an_unknown_model_has_four_bytes_a_token() -> None:
    assert Ratios().ratio("m") == 4.0


def test_the_ratio_follows_what_answers_tell() -> None:
    ratios = Ratios()
    for _ in range(60):
        ratios.observe("m", 5600, 2000)
    assert ratios.ratio("m") == pytest.approx(2.8, rel=0.05)
    assert ratios.ratio("other") == DEFAULT_RATIO


def test_it_follows_a_change_of_traffic() -> None:
    ratios = Ratios()
    for bytes_per_token in (2.0, 6.0):
        for _ in range(100):
            ratios.observe("m", int(1000 * bytes_per_token), 1000)
    assert ratios.ratio("m") == pytest.approx(6.0, rel=0.1)


def test_one_lie_does_not_turn_it() -> None:
    ratios = Ratios()
    for _ in range(100):
        ratios.observe("m", 4000, 1000)
    ratios.observe("m", 10**9, 1)
    ratios.observe("m", 1, 10**12)
    assert 2.0 < ratios.ratio("m") < 7.0


@given(st.lists(st.tuples(st.integers(-5, 2**50), st.integers(-5, 2**50)), max_size=50))
def test_whatever_is_told_the_ratio_stays_between_one_and_sixteen(told: list[tuple[int, int]]) -> None:
    ratios = Ratios()
    for size, tokens in told:
        ratios.observe("m", size, tokens)
    assert 1.0 <= ratios.ratio("m") <= 16.0


def test_models_are_bounded_and_the_one_not_seen_for_longest_goes() -> None:
    ratios = Ratios(models=2)
    for model in ("a", "b", "a", "c"):
        ratios.observe(model, 100_000, 10_000)
    assert len(ratios) == 2
    assert ratios.ratio("b") == DEFAULT_RATIO
    assert ratios.ratio("a") != DEFAULT_RATIO
