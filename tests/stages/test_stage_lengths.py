"""Traffic by length: what a request adds, what fades, when two mixes are unlike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_traffic import chats_and_documents, recorded

from picker.stages.lengths import (
    ARRIVALS,
    CONTEXT,
    CROSSINGS,
    NEW,
    REUSED,
    TOKENS,
    Lengths,
    drift,
    grid,
)

tokens = st.floats(0, 2e6)


def test_the_grid_doubles_every_fourth_edge() -> None:
    edges = grid(1 << 20)

    assert edges[0] == 0
    assert edges[1::4].tolist() == [128.0 * 2**i for i in range(13)]
    assert (np.diff(edges) > 0).all()


@given(prompt=tokens, output=tokens, cached=st.floats(0, 1))
def test_a_growing_request_is_decoded_somewhere_at_every_length(prompt: float, output: float, cached: float) -> None:
    lengths = recorded([(prompt, prompt * (1 - cached), output)], stay=False)
    columns = lengths.traffic().columns * 60

    near = pytest.approx
    weight = columns[ARRIVALS].sum()
    assert columns[TOKENS].sum() == near(weight * output, rel=1e-6, abs=1e-6)
    assert columns[CONTEXT].sum() == near(weight * output * (prompt + output / 2), rel=1e-6, abs=1e-3)
    first, last = np.searchsorted(lengths.edges, [prompt, max(prompt, prompt + output - 1e-6)], side="right") - 1
    assert (columns[CROSSINGS] > 0).sum() == last - first


def test_a_request_that_stays_belongs_to_one_length() -> None:
    traffic = recorded([(1000.0, 1000.0, 7000.0)]).traffic()

    [bucket] = np.flatnonzero(traffic.columns[TOKENS])
    assert traffic.edges[bucket] <= 8000 < traffic.edges[bucket + 1]
    assert not traffic.columns[CROSSINGS].any()


def test_a_boundary_parts_a_request_from_what_was_cached_of_its_beginning() -> None:
    traffic = recorded([(10_000.0, 2_000.0, 100.0)]).traffic()

    parted = traffic.edges[np.flatnonzero(traffic.columns[REUSED])]
    assert parted.min() > 8000
    assert parted.max() <= 10_100


@given(prompt=st.sampled_from([float("nan"), float("inf"), -1.0]), output=tokens)
def test_numbers_that_are_none_add_nothing(prompt: float, output: float) -> None:
    assert not recorded([(prompt, 1.0, output)]).traffic().columns.any()


def test_a_steady_stream_has_its_true_rate_however_long_it_lasts() -> None:
    for over_s in (30.0, 1000.0):
        traffic = recorded([(1000.0, 1000.0, 100.0)] * int(over_s * 5), over_s=over_s).traffic()
        assert traffic.columns[ARRIVALS].sum() == pytest.approx(5.0, rel=0.02)


def test_the_parts_together_are_the_whole() -> None:
    lengths = recorded(chats_and_documents(number=100))

    mean = sum(fold.columns for fold in lengths.folds()) / Lengths.FOLDS
    np.testing.assert_allclose(mean, lengths.traffic().columns)


def test_what_is_long_ago_is_forgotten() -> None:
    lengths = recorded([(100.0, 100.0, 100.0)] * 50)
    lengths.fade(1e5)

    assert lengths.traffic().requests < 1e-9


def test_the_same_kind_of_traffic_hardly_drifts_and_another_kind_does() -> None:
    chats = recorded(chats_and_documents(1, documents=0.1), stay=False).traffic()
    again = recorded(chats_and_documents(2, documents=0.1), stay=False).traffic()
    documents = recorded(chats_and_documents(3, documents=0.9), stay=False).traffic()

    assert drift(chats, chats) == 0.0
    assert drift(chats, again) < 0.15 < drift(chats, documents)
    assert drift(chats, chats.times(2.0)) == pytest.approx(0.5)
    assert drift(chats, Lengths(1 << 17).traffic()) == 1.0
    assert chats.columns[NEW].sum() > 0
