"""Trees are believed as far as trees before them foretold what came after."""

import numpy as np
import pytest
from experience_rows import learnable

from picker.learning.experience import Experience
from picker.learning.features import LOADS
from picker.learning.model import Model
from picker.learning.rounds import Rounds
from picker.learning.training import Parts, said_by_trees

WAITING = LOADS.index("waiting")
QUICK = Parts(tree_count=20, leaves=7)


def slower_where_somebody_waits(count: int, start: int = 0, factor: float = 1.0) -> Experience:
    """No term of the base says it; without a factor the feature is there and means nothing."""
    made = learnable(count, start)
    waits = np.random.default_rng(start).random(count) < 0.5
    made["features"][:, WAITING] = 5 * waits
    made["ttft_ms"] *= np.where(waits, factor, 1.0)
    return made


def after(rounds: Rounds, *lots: Experience) -> Model:
    """The last of the models made of ever more rows."""
    model = None
    for at in range(len(lots)):
        model = rounds(np.concatenate(lots[: at + 1]), at + 1)
    assert model is not None
    return model


def test_trees_that_find_what_the_base_misses_are_believed() -> None:
    rounds = Rounds(QUICK)
    model = after(rounds, slower_where_somebody_waits(600, factor=3.0), slower_where_somebody_waits(200, 1000, 3.0))
    assert rounds.trust.shares[0] > 0.8
    assert np.ptp(said_by_trees(model, slower_where_somebody_waits(50, 5000, 3.0))[0]) > 0.6


def test_trees_that_learned_noise_by_heart_are_not() -> None:
    rounds = Rounds(QUICK)
    after(rounds, *(slower_where_somebody_waits(300, 1000 * lot) for lot in range(8)))
    assert max(rounds.trust.shares) < 0.4


def test_the_first_trees_have_to_prove_themselves_too() -> None:
    assert Rounds(QUICK).trust.shares == (0.0, 0.0)
    rounds = Rounds(QUICK)
    after(rounds, slower_where_somebody_waits(600, factor=3.0))
    assert rounds.trust.shares[0] > 0.8


def test_where_what_they_knew_ends_they_lose_their_say() -> None:
    rounds = Rounds(QUICK)
    after(rounds, slower_where_somebody_waits(600, factor=3.0))
    before = rounds.trust.shares[0]
    for lot in range(4):
        rounds(slower_where_somebody_waits(600, factor=3.0), lot)
        rounds.trust.learn(np.tile([0.5, -0.5], (2, 300)), np.tile([-0.5, 0.5], (2, 300)))
    assert rounds.trust.shares[0] < 0.5 * before


def test_a_model_has_the_corrections_that_fit_its_own_trees() -> None:
    made = slower_where_somebody_waits(600, factor=3.0)
    made["ttft_ms"] *= np.where(made["endpoint"] == 1, 2.0, 1.0)
    model = after(Rounds(QUICK), made)
    told = model.corrections
    assert told[1].log_ttft - told[0].log_ttft == pytest.approx(np.log(2), abs=0.25)


@pytest.mark.parametrize("parts", [Parts(trees=False), Parts(corrections=False)])
def test_what_is_left_out_stays_out(parts: Parts) -> None:
    model = after(Rounds(parts), learnable(400), learnable(100, 1000))
    assert bool(model.corrections) == parts.corrections
    assert parts.trees or not len(model.ttft_trees)


def test_too_few_rows_give_no_model() -> None:
    assert Rounds(QUICK)(learnable(10), 1) is None
