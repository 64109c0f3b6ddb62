"""Each scorer of llm-d-router gives the score that its formula says."""

import numpy as np
import pytest
from composing import REQUEST, look, members, scored
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.engines.metrics import LoraState
from picker.policies.composed.plugins import SCORERS
from picker.policies.example import example_request
from picker.requests.request import Request


@pytest.mark.parametrize(
    ("kind", "columns", "expected"),
    [
        ("queue-scorer", {"waiting": [0, 5, 10]}, [1.0, 0.5, 0.0]),
        ("queue-scorer", {"waiting": [7, 7]}, [1.0, 1.0]),
        ("running-requests-size-scorer", {"running": [2, 4, 3]}, [1.0, 0.0, 0.5]),
        ("kv-cache-utilization-scorer", {"kv_usage": [0.0, 0.25, 1.0]}, [1.0, 0.75, 0.0]),
        ("load-aware-scorer", {"waiting": [0, 64, 128, 500]}, [0.5, 0.25, 0.0, 0.0]),
        ("active-request-scorer", {"in_flight": [0, 1, 4]}, [1.0, 0.75, 0.0]),
        ("active-request-scorer", {"in_flight": [0, 0]}, [1.0, 1.0]),
        ("token-load-scorer", {"hit_tokens": [1599, 1599], "queued_tokens": [2**20 - 1, 2**23]}, [0.75, 0.0]),
        ("prefix-cache-scorer", {"hit_tokens": [1600, 400, 0]}, [1.0, 0.25, 0.0]),
        ("precise-prefix-cache-scorer", {"hit_tokens": [1600, 800, 400]}, [1.0, 0.333333, 0.0]),
        ("precise-prefix-cache-scorer", {"hit_tokens": [800, 800]}, [1.0, 1.0]),
        ("precise-prefix-cache-scorer", {"hit_tokens": [0, 0]}, [0.0, 0.0]),
        ("no-hit-lru-scorer", {"hit_tokens": [16, 0, 0]}, [0.5, 0.5, 0.5]),
        ("no-hit-lru-scorer", {"hit_tokens": [0]}, [1.0]),
    ],
)
def test_a_score_is_what_its_formula_says(kind: str, columns: dict[str, list[float]], expected: list[float]) -> None:
    assert scored(kind, look(**columns)) == expected


def test_parameters_move_the_thresholds() -> None:
    assert scored("load-aware-scorer", look(waiting=[0, 5, 10]), threshold=10) == [0.5, 0.25, 0.0]
    assert scored("token-load-scorer", look(hit_tokens=[1599]), queueThresholdTokens=4) == [0.75]


def test_idle_endpoints_can_be_set_apart_from_busy_ones() -> None:
    seen = look(in_flight=[2, 3, 4, 8])

    assert scored("active-request-scorer", seen, idleThreshold=2, maxBusyScore=0.5) == [1.0, 0.3125, 0.25, 0.0]


def test_a_long_prefix_can_count_for_itself() -> None:
    seen = look(example_request(prompt_tokens=4096), hit_tokens=[4096, 2048])

    assert scored("prefix-cache-scorer", seen, prefixLengthWeight=1) == [0.25, 0.0625]
    assert scored("prefix-cache-scorer", seen, prefixLengthWeight=0.5, maxModelLen=4096) == [1.0, 0.375]


def test_an_adapter_is_best_where_it_runs_then_where_there_is_room_then_where_it_waits() -> None:
    lora = {
        0: LoraState(2, ("sql",), ("other",)),
        1: LoraState(2, ("other",), ()),
        2: LoraState(2, ("other",), ("sql",)),
        3: LoraState(2, ("other", "another"), ()),
    }
    seen = look(Request(model="sql"), members({}, {}, {}, {}, {}, lora=lora), waiting=[0] * 5)

    assert scored("lora-affinity-scorer", seen) == [1.0, 0.8, 0.6, 0.0, 0.0]


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_every_score_is_a_share(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    counts = st.lists(st.integers(0, 10**7).map(float), min_size=n, max_size=n)
    columns = {name: data.draw(counts) for name in ("waiting", "running", "in_flight", "queued_tokens")}
    shares = np.array(data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n)))
    seen = look(**columns, kv_usage=shares.tolist(), hit_tokens=(REQUEST.prompt_tokens * shares).tolist())

    for kind in SCORERS:
        assert all(0.0 <= score <= 1.0 for score in scored(kind, seen))
