"""The kernel says what `features`, `estimate`, `judge` and `outside` say, on any rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from toy_model import toy_model

from picker.engines.rows import Rows
from picker.engines.table import MAX_HARDWARE
from picker.learning import learner as module
from picker.learning.decision import COST, Stakes, Weights
from picker.learning.features import TPOT_TERMS, TREE_FEATURES, TTFT_TERMS, features
from picker.learning.forest import NO_FOREST, Forest, fit_forest
from picker.learning.kernel import PICKED_AT, SEEN
from picker.learning.learner import Learner
from picker.learning.model import Model
from picker.learning.prediction import Compiled, Opinion, Prediction
from picker.learning.quickscorer import COMPILED
from picker.learning.ready import ready
from picker.policies.example import example_request, example_rows

NOW = 100.0
SIZES = st.sampled_from([1, 15, 16, 17, 63, 64, 65, 1024])
REWARDS = st.sampled_from([Weights(), Weights(0.0, 1.0), Weights(1.0, 1.0), Weights(0.1, 0.0, 1000.0)])


def pool(n: int, seed: int, classes: int = MAX_HARDWARE, scale: float = 1.0) -> Rows:
    """Engines with and without anything in prefill, with caches of known and unknown size."""
    rng = np.random.default_rng(seed)
    prompt = 3000.0
    hit = np.where(rng.random(n) < 0.5, rng.integers(0, 188, n) * 16.0, 0.0)
    return Rows(
        slots=rng.permutation(2 * n)[:n],
        batch=np.floor(rng.random(n) * 40 * scale),
        queued_tokens=np.floor(rng.random(n) * 30_000 * scale) * (rng.random(n) < 0.7),
        hit_tokens=hit,
        new_tokens=np.maximum(1.0, prompt - hit),
        running=np.floor(rng.random(n) * 40 * scale),
        waiting=np.floor(rng.random(n) * 10 * scale),
        kv_usage=rng.random(n),
        in_flight=np.zeros(n),
        decode_tokens=np.floor(rng.random(n) * 90_000 * scale),
        age_s=np.zeros(n),
        prefilling=np.floor(rng.random(n) * 3),
        queued_work=rng.random(n) * 1e8 * scale,
        queued_prompts=np.floor(rng.random(n) * 60_000 * scale),
        head_s=rng.random(n),
        hardware=rng.integers(0, classes, n),
        kv_tokens=np.where(rng.random(n) < 0.8, 100_000.0, 0.0),
    )


def forest(seed: int, trees: int, leaves: int) -> Forest:
    """Trees that look at every feature, as a pool has it."""
    rng = np.random.default_rng(seed)
    seen = features(pool(800, seed), 3000.0, rng.random(800) * 30).trees.astype(np.float32)
    spread = (seen - seen.mean(axis=1, keepdims=True)) / np.maximum(seen.std(axis=1, keepdims=True), 1e-6)
    target = 3.0 * np.sin(spread.T @ rng.normal(size=(len(seen), 2))).sum(axis=1)
    return fit_forest(np.ascontiguousarray(seen.T), target, trees=trees, leaves=leaves)


TTFT_FOREST, TPOT_FOREST = forest(1, 30, 31), forest(2, 20, 15)


def model(seed: int, *, trees: bool) -> Model:
    """Random coefficients, trained where most of a pool is."""
    rng = np.random.default_rng(seed)
    seen = features(pool(200, seed), 3000.0, rng.random(200) * 30).trees.astype(np.float32)
    return replace(
        toy_model(),
        ttft_base=rng.random((MAX_HARDWARE, len(TTFT_TERMS))) * 50,
        tpot_base=rng.random((MAX_HARDWARE, len(TPOT_TERMS))) * 5,
        ttft_trees=TTFT_FOREST if trees else NO_FOREST,
        tpot_trees=TPOT_FOREST if trees else NO_FOREST,
        lowest=seen.min(axis=1),
        highest=seen.max(axis=1),
    )


def learner(known: Model, capacity: int, seed: int = 0, correct: bool = True) -> Learner:
    """In the middle of its day: some caches full, some endpoints corrected, some new."""
    rng = np.random.default_rng(seed)
    made = Learner(correct=correct)
    made.ensure(capacity)
    made.adopt(known, NOW)
    for i in range(20):
        made.reuse.asked(np.arange(64, 64 * 300, 64, dtype=np.uint64), 5.0 * i)
    for slot in range(0, capacity, 2):
        made.corrections.observe(slot, rng.normal(), rng.normal(), NOW)
        for at in rng.random(3).cumsum() * 30:
            made.pressure.placed(slot, rng.random() * 90_000, 200.0, 100_000.0, at)
    made._slots[SEEN] = rng.integers(0, 20, made._slots.shape[1])
    made._slots[PICKED_AT, ::2] = rng.random(made._slots[PICKED_AT, ::2].shape) * NOW
    return made


def both(made: Learner, rows: Rows, stakes: Stakes, monkeypatch: pytest.MonkeyPatch) -> tuple[Opinion, Opinion]:
    """What machine code says, and numpy."""
    request = example_request(stakes.prompt_tokens)
    with monkeypatch.context() as patch:
        patch.setattr(module, "COMPILED", COMPILED)
        quick = made.judge(request, rows, stakes, NOW)
        patch.setattr(module, "COMPILED", False)
        return quick, made.judge(request, rows, stakes, NOW)


def assert_same(quick: Opinion, plain: Opinion, row: int) -> None:
    assert isinstance(plain.foresight, Prediction)
    assert isinstance(quick.foresight, Compiled) is COMPILED
    np.testing.assert_allclose(quick.judgement.columns, plain.judgement.columns, rtol=1e-6, atol=1e-6)
    assert quick.judgement.cost[quick.best] == pytest.approx(plain.judgement.cost[plain.best])
    assert quick.unknown == plain.unknown
    assert (quick.refusing, quick.longest, quick.left_out_s) == (plain.refusing, plain.longest, plain.left_out_s)
    one, other = quick.foresight.of(row), plain.foresight.of(row)
    for field in one._fields:
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=1e-6, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    n=SIZES,
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from([1, 2, MAX_HARDWARE]),
    scale=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    trees=st.booleans(),
    correct=st.booleans(),
    weights=REWARDS,
    prompt=st.sampled_from([1.0, 3000.0, 131_072.0]),
    limit=st.sampled_from([50.0, 1000.0, math.inf]),
)
def test_machine_code_says_what_numpy_says(
    n: int,
    seed: int,
    classes: int,
    scale: float,
    trees: bool,
    correct: bool,
    weights: Weights,
    prompt: float,
    limit: float,
) -> None:
    made = learner(model(seed, trees=trees), 2 * n, seed, correct)
    stakes = Stakes(prompt, 150.0, 0.3, 2.5, weights, limit, limit / 20)
    rows = pool(n, seed, classes, scale)

    assert_same(*both(made, rows, stakes, pytest.MonkeyPatch()), row=seed % n)


def test_every_class_of_hardware_has_its_own_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(model(3, trees=True), 256)
    stakes = Stakes(3000.0, 150.0, 0.3, 2.5)
    rows = structs.replace(pool(128, 3), hardware=np.arange(128) % MAX_HARDWARE)
    alike = {f.name: np.full(128, getattr(rows, f.name)[0]) for f in structs.fields(rows)}
    quick, plain = both(made, Rows(**alike | {"hardware": rows.hardware}), stakes, monkeypatch)

    assert_same(quick, plain, row=9)
    assert len(set(np.round(quick.judgement.ttft_ms, 6))) == MAX_HARDWARE


@pytest.mark.parametrize(("far", "unknown"), [(0, False), (31, False), (33, True)])
def test_a_pool_mostly_beyond_what_was_trained_on_is_unknown_ground(
    far: int, unknown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = example_request(1000)
    near = toy_model(ttft={"batch": 10.0})
    usual = features(example_rows(request, batch=[0.0, 10.0]), 1000.0, np.zeros(2)).trees.astype(np.float32)
    made = learner(replace(near, lowest=usual.min(axis=1), highest=usual.max(axis=1)), 64)
    made.pressure.columns[:2] = 0.0
    rows = example_rows(request, batch=[5.0] * (64 - far) + [500.0] * far)
    quick, plain = both(made, rows, Stakes(1000.0, 100.0, 0.0, 0.0), monkeypatch)

    assert (quick.unknown, plain.unknown) == (unknown, unknown)


@pytest.mark.parametrize("absurd", [math.nan, math.inf])
def test_numbers_that_are_none_are_unknown_ground(absurd: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learner(model(3, trees=True), 64)
    rows = structs.replace(pool(5, 3), decode_tokens=np.array([1.0, 2.0, absurd, 3.0, 4.0]))
    with np.errstate(invalid="ignore"):
        quick, plain = both(
            made, structs.replace(rows, slots=np.arange(5)), Stakes(3000.0, 100.0, 0.1, 1.0), monkeypatch
        )

    if math.isnan(absurd):
        assert (quick.best, plain.best, quick.unknown) == (2, 2, True)
    known = [0, 1, 3, 4]
    np.testing.assert_allclose(quick.judgement.columns[:, known], plain.judgement.columns[:, known], rtol=1e-6)
    assert not math.isfinite(quick.judgement.columns[COST, 2])


@pytest.mark.parametrize("column", [{"slots": [4096]}, {"hardware": [MAX_HARDWARE]}])
def test_an_endpoint_without_a_place_is_an_error_and_not_another_ones_numbers(column: dict[str, list[float]]) -> None:
    request = example_request(1000)
    made = learner(toy_model(), 64)
    with pytest.raises(IndexError):
        made.judge(request, example_rows(request, **column), Stakes(1000.0, 100.0, 0.0, 0.0), NOW)


def test_trees_of_other_features_are_refused() -> None:
    rows = np.random.default_rng(0).random((100, len(TREE_FEATURES) + 1)).astype(np.float32)
    others = fit_forest(rows, rows.sum(axis=1), trees=2)
    with pytest.raises(ValueError, match="features"):
        ready(replace(toy_model(), ttft_trees=others))
