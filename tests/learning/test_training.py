"""Models made of finished picks: good from few rows on, the same for the same rows, and sound whatever the rows."""

from dataclasses import replace

import numpy as np
import pytest
from experience_rows import learnable, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from picker.learning.experience import EXPERIENCE, Experience, sane
from picker.learning.features import LOADS, TREE_FEATURES
from picker.learning.forest import NO_FOREST
from picker.learning.memory import to_arrays
from picker.learning.model import Model
from picker.learning.training import LEAST_ROWS, LEAST_TREE_ROWS, Parts, errors, estimate_rows, train

WAITING = LOADS.index("waiting")
QUICK = Parts(tree_count=20, leaves=7)


def model_of(experience: Experience, parts: Parts = QUICK) -> Model:
    model = train(experience, 1, parts)
    assert model is not None
    return model


def mean_error(model: Model, experience: Experience) -> float:
    return float(errors(model, experience).mean())


def misjudged(count: int, start: int = 0) -> Experience:
    """Where somebody waits, requests take twice as long, which no term of the base says."""
    made = learnable(count, start)
    waits = np.random.default_rng(start).random(count) < 0.5
    made["features"][:, WAITING] = 5 * waits
    made["ttft_ms"] *= 1 + waits
    return made


class TestRows:
    def test_too_few_rows_give_no_model(self) -> None:
        assert train(learnable(LEAST_ROWS - 1), 1) is None
        assert train(learnable(LEAST_ROWS), 1) is not None

    def test_too_few_answers_of_more_than_a_token_give_none_either(self) -> None:
        made = learnable(100)
        made["tpot_ms"][LEAST_ROWS - 1 :] = np.nan
        assert train(made, 1) is None

    def test_thirty_rows_predict_the_next_ones(self) -> None:
        model = model_of(learnable(LEAST_ROWS))
        assert mean_error(model, learnable(200, 500)) < 0.1
        assert np.exp(estimate_rows(model, learnable(20, 500)).log_tpot) == pytest.approx([10.0] * 20, rel=0.1)

    def test_it_tells_its_version_and_how_many_rows_it_saw(self) -> None:
        model = train(learnable(64), 7, QUICK)
        assert model is not None
        assert (model.version, model.rows) == (7, 64)

    def test_equal_rows_give_equal_models(self) -> None:
        one, other = (to_arrays(model_of(misjudged(300))) for _ in range(2))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name], equal_nan=one[name].dtype.names is None) for name in one)

    def test_rows_that_are_all_alike_are_predicted(self) -> None:
        """No column varies: nothing can be told apart, and nothing breaks."""
        made = rows(LEAST_TREE_ROWS, ttft_terms=1.0, tpot_terms=1.0)
        said = estimate_rows(model_of(made), made)
        assert np.exp(said.log_ttft) == pytest.approx([100.0] * len(made), rel=1e-3)

    @settings(max_examples=20, deadline=None)
    @given(st.data())
    def test_whatever_is_sane_gives_a_model_that_says_numbers(self, data: st.DataObject) -> None:
        """Any bytes at all, of which those rows are kept that can be learned from."""
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        wild = learnable(60)
        for name in ("ttft_terms", "tpot_terms", "features", "ttft_ms", "tpot_ms", "head_ms"):
            scale = data.draw(st.sampled_from([0.0, 1e-6, 1e3, 1e30, np.inf]))
            touched = rng.random(60) < data.draw(st.sampled_from([0.0, 0.1, 0.9]))
            wild[name][touched] = rng.normal(0, 1, wild[name][touched].shape) * scale
        noise = data.draw(hnp.arrays(np.uint8, EXPERIENCE.itemsize))
        wild[:1] = np.frombuffer(noise.tobytes(), EXPERIENCE)
        kept = wild[sane(wild)]
        model = train(kept, 1, QUICK)
        if model is not None:
            said = estimate_rows(model, kept)
            assert np.isfinite(said.log_ttft).all()
            assert np.isfinite(said.log_tpot).all()
            assert (model.ttft_base >= 0).all()


class TestParts:
    def test_trees_say_what_the_base_misses(self) -> None:
        seen, unseen = misjudged(600), misjudged(300, 1000)
        with_trees = model_of(seen)
        without = model_of(seen, replace(QUICK, trees=False))
        assert without.ttft_trees is NO_FOREST
        assert mean_error(with_trees, unseen) < 0.1
        assert mean_error(without, unseen) > 0.2

    def test_trees_wait_for_more_rows_than_the_base_needs(self) -> None:
        assert model_of(misjudged(LEAST_TREE_ROWS - 1)).ttft_trees is NO_FOREST
        assert len(model_of(misjudged(LEAST_TREE_ROWS)).ttft_trees)

    def test_without_a_base_the_trees_stand_on_the_mean(self) -> None:
        model = model_of(misjudged(600), replace(QUICK, base=False))
        assert np.count_nonzero(model.ttft_base[0]) == 1
        assert mean_error(model, misjudged(300, 1000)) < 0.35

    def test_without_base_and_trees_everything_takes_the_mean(self) -> None:
        made = learnable(100)
        model = model_of(made, Parts(base=False, trees=False, corrections=False))
        mean = np.exp(np.log(made["ttft_ms"]).mean())
        assert np.exp(estimate_rows(model, made).log_ttft) == pytest.approx([mean] * 100, rel=1e-3)


class TestCorrections:
    def slow(self, factor: float) -> Experience:
        """The third of three endpoints is slower than the others, by no feature."""
        made = learnable(150)
        made["ttft_ms"][made["endpoint"] == 2] *= factor
        made["tpot_ms"][made["endpoint"] == 2] *= factor
        return made

    def test_each_endpoint_comes_with_what_its_last_rows_say_beyond_the_shared_model(self) -> None:
        corrections = model_of(self.slow(1.5)).corrections
        assert sorted(corrections) == [0, 1, 2]
        assert corrections[2].log_ttft - corrections[0].log_ttft == pytest.approx(np.log(1.5), abs=0.1)
        assert corrections[2].log_tpot - corrections[0].log_tpot == pytest.approx(np.log(1.5), abs=0.1)

    def test_they_count_when_the_model_is_judged(self) -> None:
        made = self.slow(2.0)
        assert mean_error(model_of(made), made) < mean_error(model_of(made, replace(QUICK, corrections=False)), made)

    def test_they_can_be_left_out(self) -> None:
        assert not model_of(self.slow(1.5), replace(QUICK, corrections=False)).corrections

    def test_an_endpoint_whose_tokens_were_never_timed_has_no_word_on_them(self) -> None:
        made = learnable(150)
        made["tpot_ms"][made["endpoint"] == 1] = np.nan
        correction = model_of(made).corrections[1]
        assert np.isnan(correction.log_tpot)
        assert np.isfinite(correction.log_ttft)


class TestRange:
    def test_the_range_is_that_of_the_rows(self) -> None:
        made = learnable(100)
        model = model_of(made)
        new = TREE_FEATURES.index("log_new")
        assert model.lowest[new] == made["features"][:, new].min()
        assert model.highest[new] == made["features"][:, new].max()

    def test_loads_that_others_tell_better_have_none(self) -> None:
        model = model_of(learnable(100))
        assert model.lowest[WAITING] < -1e20 < 1e20 < model.highest[WAITING]

    def test_a_load_that_a_new_process_counts_from_nothing_may_be_nothing(self) -> None:
        made = learnable(100)
        rate = TREE_FEATURES.index("prefill_rate")
        made["features"][:, rate] = np.linspace(16, 20, 100)
        model = model_of(made)
        assert model.lowest[rate] == 0
        assert model.highest[rate] == 20
