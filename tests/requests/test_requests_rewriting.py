"""Model rewrites by rule, and the priority of objectives."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.pool.directory import Rewrite, Target
from picker.requests.reader import Reader
from picker.requests.request import BadRequest, Request
from picker.requests.rewriting import Rewriting

CHAT = "/v1/chat/completions"


def rule(*targets: tuple[str] | tuple[str, int], models: Iterable[str] = ()) -> Rewrite:
    return Rewrite("r", frozenset(models), tuple(Target(*target) for target in targets))


def read(reader: Reader, body: dict[str, Any], headers: dict[str, str] | None = None, path: str = CHAT) -> Request:
    body = {"messages": [{"role": "user", "content": "hi"}]} | body
    return reader.finish(reader.parse(path, headers or {}, json.dumps(body).encode()))


def sent(request: Request) -> dict[str, Any]:
    """The body that the engine gets in place of the client's."""
    assert request.body is not None
    found: dict[str, Any] = json.loads(request.body)
    return found


def reader_with(
    *rules: Rewrite, priorities: dict[str, int] | None = None, draw: Callable[[], float] = lambda: 0.0
) -> Reader:
    reader = Reader(draw=draw)
    reader.follow(priorities or {}, rules)
    return reader


def test_a_rule_for_the_model_comes_before_one_for_all_and_the_first_before_the_second() -> None:
    rewriting = Rewriting([rule(("one",), models=["m"]), rule(("two",), models=["m"]), rule(("any",)), rule(("no",))])
    assert [rewriting.target(model) for model in ("m", "other", "")] == ["one", "any", "any"]


def test_without_a_rule_that_applies_the_model_stays() -> None:
    assert Rewriting([rule(("one",), models=["m"])]).target("n") == ""
    request = read(reader_with(rule(("one",), models=["m"])), {"model": "n"})
    assert (request.model, request.client_model, request.body) == ("n", "n", None)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8).filter(any))
def test_targets_are_drawn_by_weight_and_one_without_weight_never_is(weights: list[int]) -> None:
    draws = cycle(number / 1000 for number in range(1000))
    rewriting = Rewriting([rule(*((str(at), weight) for at, weight in enumerate(weights)))], lambda: next(draws))
    seen = Counter(rewriting.target("m") for _ in range(1000))
    for at, weight in enumerate(weights):
        assert seen[str(at)] == pytest.approx(1000 * weight / sum(weights), abs=1.5)
        assert weight or not seen[str(at)]


def test_the_engine_is_asked_for_the_target_and_the_rest_of_the_body_stays_as_it_was() -> None:
    reader = reader_with(rule(("lora-2", 1), models=["m"]))
    request = read(reader, {"model": "m", "seed": 5})
    assert (request.model, request.client_model) == ("lora-2", "m")
    assert sent(request)["model"] == "lora-2"
    assert sent(request)["seed"] == 5


def test_the_prefix_is_that_of_the_model_which_the_engine_is_asked_for() -> None:
    text = {"messages": [{"role": "user", "content": "x" * 4000}]}
    rewritten = read(reader_with(rule(("a",), models=["m"])), {"model": "m", **text})
    direct = read(reader_with(), {"model": "a", **text})
    assert rewritten.chain.tolist() == direct.chain.tolist()


def test_a_rule_for_all_supplies_the_model_that_the_client_left_out() -> None:
    request = read(reader_with(rule(("base",))), {})
    assert (request.model, request.client_model, sent(request)["model"]) == ("base", "", "base")
    with pytest.raises(BadRequest, match="'model' is required"):
        read(reader_with(rule(("base",), models=["m"])), {})


def test_a_path_that_passes_through_is_given_no_model_that_it_never_had() -> None:
    reader = reader_with(rule(("base",)))
    assert read(reader, {"lora_path": "/x"}, path="/v1/load_lora_adapter").body is None
    assert sent(read(reader, {"model": "m"}, path="/v1/rerank"))["model"] == "base"


def test_a_rule_counts_more_than_the_rewrite_header_which_counts_where_no_rule_applies() -> None:
    reader, header = reader_with(rule(("ruled",), models=["m"])), {"x-llm-d-model-name-rewrite": "asked"}
    assert [read(reader, {"model": model}, header).model for model in ("m", "n")] == ["ruled", "asked"]


@pytest.mark.parametrize("name", ["x-llm-d-inference-objective", "x-gateway-inference-objective"])
def test_an_objective_gives_its_priority_and_an_unknown_one_zero(name: str) -> None:
    reader = reader_with(priorities={"batch": -5, "chat": 7})
    asked = [read(reader, {"model": "m"}, headers).hints for headers in ({name: "batch"}, {name: "none"}, {})]
    assert [(hints.objective, hints.priority) for hints in asked] == [("batch", -5), ("none", 0), ("", 0)]


def test_new_rules_and_priorities_hold_from_the_next_request_on() -> None:
    reader = reader_with(rule(("old",)), priorities={"o": 1})
    reader.follow({}, [])
    request = read(reader, {"model": "m"}, {"x-llm-d-inference-objective": "o"})
    assert (request.model, request.hints.priority) == ("m", 0)
