"""llm-d's weighted sum of queue, free KV and prefix scores."""

import pytest
from small_pool import best, costs, make

from picker.policies.example import example_request

REQUEST = example_request(prompt_tokens=1600)


def test_an_idle_full_holder_gets_the_whole_weight() -> None:
    assert costs(make("weighted"), REQUEST, hit_tokens=[1600], waiting=[0], kv_usage=[0]) == [-7.0]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("waiting", [0, 5, 10], [-2.0, -1.0, 0.0]),
        ("kv_usage", [0, 0.25, 1], [-2.0, -1.5, 0.0]),
        ("hit_tokens", [1600, 800, 0], [-3.0, -1.5, 0.0]),
    ],
)
def test_each_score_runs_from_its_weight_to_nothing(column: str, values: list[float], expected: list[float]) -> None:
    full = {"kv_usage": [1.0] * 3, "waiting": [0.0, 0.0, 0.0], "hit_tokens": [0.0] * 3, column: values}
    queue = 0.0 if column == "waiting" else 2.0

    assert costs(make("weighted"), REQUEST, **full) == pytest.approx([value - queue for value in expected])


def test_equal_queues_all_score_one() -> None:
    assert costs(make("weighted", kvWeight=0, prefixWeight=0), REQUEST, waiting=[7, 7]) == [-2.0, -2.0]


def test_weights_decide() -> None:
    pool = {"hit_tokens": [1600.0, 0.0], "waiting": [9.0, 0.0]}

    assert best(make("weighted"), REQUEST, **pool) == [0]
    assert best(make("weighted", queueWeight=4), REQUEST, **pool) == [1]


def test_equal_scores_tie() -> None:
    assert best(make("weighted"), REQUEST, waiting=[1, 1, 3], kv_usage=[0.5, 0.5, 0.5]) == [0, 1]


def test_a_prompt_shorter_than_a_block_has_no_prefix_score() -> None:
    assert costs(make("weighted"), example_request(prompt_tokens=10), kv_usage=[1.0]) == [-2.0]
