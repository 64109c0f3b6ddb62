"""A policy with parameters in one word."""

import contextlib
import doctest
from string import ascii_letters, digits, printable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.policies import variant
from picker.policies.example import example_request, example_rows
from picker.policies.learned import Learned
from picker.policies.variant import file_stem, policy_maker

RNG = np.random.default_rng(0)


def cost(spec: str) -> list[float]:
    request = example_request(prompt_tokens=1600)
    rows = example_rows(request, waiting=[4, 0], kv_usage=[0.5, 0.5], hit_tokens=[1600, 0])
    found: list[float] = policy_maker(spec)(RNG).score(request, rows, 0.0).cost.tolist()
    return found


def test_parameters_have_the_names_of_configuration_files() -> None:
    assert cost("weighted?queueWeight=0&kvWeight=0&prefixWeight=1.5") == [-1.5, 0.0]
    assert cost("weighted?") == cost("weighted")


def test_a_parameter_that_takes_several_values_takes_them_joined() -> None:
    made = [policy_maker(f"learned?without={parts}")(RNG) for parts in ("trees", "marginal-cost+guard", "")]
    assert [policy.params.without for policy in made if isinstance(policy, Learned)] == [
        ("trees",),
        ("marginal-cost", "guard"),
        (),
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nosuch?a=1", 'no policy "nosuch"'),
        ("weighted?kvWait=1", 'did you mean "kvWeight"'),
        ("weighted?kvWeight=much", "expected `float`"),
        ("weighted?kvWeight=-1", ">= 0"),
        ("weighted?kvWeight=1e999", "<= 1000000"),
        ("weighted?kvWeight=1&kvWeight=2", "given twice"),
        ("weighted?kvWeight", "bad query field"),
        ("learned?without=trees+hope", "invalid enum value 'hope'"),
        ("random?x=1", "none is known"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_by_name(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        policy_maker(spec)


@given(st.text(printable))
def test_no_spec_does_worse_than_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert callable(policy_maker(f"weighted?{text}"))


@given(st.text(), st.text())
def test_file_names_are_plain_and_differ_where_specs_do(one: str, other: str) -> None:
    assert set(file_stem(f"a?{one}")) <= set("-." + ascii_letters + digits)
    assert (file_stem(one) == file_stem(other)) == (one == other)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(variant).failed == 0
