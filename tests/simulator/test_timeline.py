"""What a cell tells over time: load, first tokens, and how learning goes on."""

from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.guard import Mode, Reason, Transition
from picker.simulator.ended import SERIES_POINTS, Ended, Look, Result, Series
from picker.simulator.replay_run import Cell, Setting, run_cell
from picker.simulator.timeline import timeline
from picker.simulator.training import Progress

SETTING = Setting("gen:shared?groups=9&share=0.5&rate=12&requests=240", "h100_sxm/llama-3-8b tp1:2", regret_stride=0)


@cache
def series(policy: str) -> dict[str, Any]:
    found: dict[str, Any] = run_cell(SETTING, Cell(policy, None, 0, 1.0))["series"]
    return found


def ended(arrived_ms: float, ttft_ms: float, e2e_ms: float = 500.0, status: int = 200) -> Ended:
    return Ended(0, arrived_ms, ttft_ms, e2e_ms, 2000, 10, 0, 0, status, "a")


def progress(picks: int, by_model: int) -> Progress:
    return Progress(picks, by_model, 0.1, 0.2, Mode.LEARNED, Reason.NONE, 1, 0.3)


def told(requests: list[Ended], learning: list[Progress | None], **more: Any) -> dict[str, Any]:
    looks = Series()
    for second, look in enumerate(learning):
        looks.look(second * 1e3, partial(Look, [], look))
    return timeline(Result(requests, looks, 1e4, (), **more))


def test_ttft_is_that_of_the_requests_that_ended_since_the_point_before() -> None:
    requests = [ended(0.0, 100.0), ended(400.0, 300.0), ended(500.0, 80.0), ended(2100.0, 70.0), ended(9000.0, 60.0)]
    assert told(requests, [None] * 4)["ttft_ms"] == [None, pytest.approx(160.0), None, 70.0]


def test_windows_hold_whoever_arrived_in_them_however_late_they_ended() -> None:
    requests = [ended(0.0, 100.0, e2e_ms=90_000.0), ended(59_999.0, 300.0), ended(180_000.0, 80.0)]
    assert told(requests, [None])["arrived"] == {
        "window_s": 60.0,
        "t_s": [0.0, 180.0],
        "ttft_ms": [200.0, 80.0],
        "requests": [2, 1],
    }


def test_only_complete_requests_count() -> None:
    lost = told([ended(0.0, 100.0, status=0)], [None, None])
    assert lost["ttft_ms"] == [None, None]
    assert lost["arrived"]["t_s"] == []


def test_the_models_share_is_of_the_picks_since_the_point_before() -> None:
    found = told([], [progress(0, 0), progress(4, 1), progress(4, 1), progress(10, 7)])
    assert found["learning"]["model_share"] == [None, 0.25, None, 1.0]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=3 * SERIES_POINTS))
def test_thinning_loses_no_pick(steps: list[tuple[int, float]]) -> None:
    looks, picks, ours = [], 0, 0
    for made, share in steps:
        picks, ours = picks + made, ours + int(made * share)
        looks.append(progress(picks, ours))
    found = told([], list(looks))
    assert len(found["learning"]["model_share"]) == len(found["t_s"]) <= SERIES_POINTS
    assert all(share is None or 0 <= share <= 1 for share in found["learning"]["model_share"])


def test_hand_overs_are_told_with_their_own_times() -> None:
    found = told([], [progress(1, 1)], handovers=[Transition(7.25, Reason.COLD, Reason.NONE, {})])
    assert found["learning"]["handovers"] == [{"at_s": 7.25, "was": "cold", "now": "none"}]


def test_a_policy_that_learns_tells_how_at_every_point() -> None:
    found = series("learned")
    learning = found["learning"]
    assert {len(column) for name, column in learning.items() if name != "handovers"} == {len(found["t_s"])}
    assert (learning["reason"][0], learning["mode"][0], learning["version"][0]) == ("cold", "rule", 0)
    assert learning["model_error"][0] is None
    assert learning["version"] == sorted(learning["version"])
    assert learning["model_error"][-1] > 0
    assert learning["handovers"][0]["was"] == "cold"
    assert max(share for share in learning["model_share"] if share is not None) > 0.5


def test_others_tell_their_first_tokens_only() -> None:
    found = series("multiplicative")
    assert found["learning"] is None
    assert len(found["ttft_ms"]) == len(found["t_s"])
    assert sum(found["arrived"]["requests"]) == 240


def test_learning_is_the_same_each_time() -> None:
    assert run_cell(SETTING, Cell("learned", None, 0, 1.0))["series"] == series("learned")
