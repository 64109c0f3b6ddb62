"""Join the shortest queue."""

from small_pool import best, costs, make

from picker.policies.example import example_request

REQUEST = example_request(prompt_tokens=1000)


def test_cost_is_four_times_waiting_plus_batch() -> None:
    assert costs(make("jsq"), REQUEST, waiting=[0, 1, 5], batch=[7, 2, 5]) == [7, 6, 25]


def test_a_waiting_request_outweighs_three_running_ones() -> None:
    assert best(make("jsq"), REQUEST, waiting=[1, 0], batch=[1, 4]) == [1]


def test_without_queues_the_smallest_batch_wins() -> None:
    assert best(make("jsq"), REQUEST, batch=[3, 1, 2]) == [1]
