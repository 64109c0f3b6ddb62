"""What is read of pods, pools, objectives and rewrites, and what is refused."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import objective, pod, pool, raw, rewrite, to

from picker.pool.directory import Target
from picker.pool.kube.objects import (
    BadObject,
    Objective,
    PoolSpec,
    read_objective,
    read_pod,
    read_pool,
    read_rewrite,
)

Place = tuple[str | int, ...]
"""The keys that lead to a value within others."""
READERS: tuple[Callable[[bytes], object], ...] = (read_pod, read_pool, read_objective, read_rewrite)
GROUP = "inference.networking.k8s.io"


@pytest.mark.parametrize(
    ("found", "serving"),
    [
        (pod(), True),
        (pod(ready=False), False),
        (pod(deleting=True), False),
        (pod() | {"status": {"podIP": "10.0.0.1"}}, False),
        ({"metadata": {"name": "a"}}, False),
    ],
)
def test_a_pod_serves_while_it_is_ready_and_not_being_deleted(found: dict[str, Any], serving: bool) -> None:
    assert read_pod(raw(found)).serving is serving


@pytest.mark.parametrize(
    ("ip", "literal"), [("10.0.0.1", "10.0.0.1"), ("fd00:0::1", "[fd00::1]"), ("", ""), (None, "")]
)
def test_a_pods_ip_is_written_as_addresses_write_it(ip: object, literal: str) -> None:
    assert read_pod(raw(pod(ip=ip))).ip == literal


@pytest.mark.parametrize("ip", ["10.0.0", "evil.example", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "1" * 999, 7])
def test_an_ip_that_no_pod_can_have_makes_the_pod_unusable(ip: object) -> None:
    with pytest.raises(BadObject, match=r"status\.podIP"):
        read_pod(raw(pod(ip=ip)))


@pytest.mark.parametrize("prefix", ["llm-d.ai", "inference.networking.k8s.io"])
def test_engine_and_active_ports_are_read_under_the_new_and_the_old_name(prefix: str) -> None:
    found = read_pod(
        raw(pod(labels={f"{prefix}/engine-type": "sglang"}, annotations={f"{prefix}/active-ports": "8000, 8002"}))
    )
    assert (found.engine, found.active_ports) == ("sglang", frozenset({8000, 8002}))


def test_the_new_name_counts_where_both_are_there() -> None:
    both = {"llm-d.ai/engine-type": "triton", "inference.networking.k8s.io/engine-type": "sglang"}
    assert read_pod(raw(pod(labels=both))).engine == "triton"


@pytest.mark.parametrize("labels", [{}, {"llm-d.ai/engine-type": "unheard-of"}])
def test_an_engine_that_is_not_told_or_not_known_is_vllm(labels: dict[str, str]) -> None:
    assert read_pod(raw(pod(labels=labels))).engine == "vllm"


@pytest.mark.parametrize(
    ("text", "ports"), [("8000", {8000}), ("", set()), ("x, 8000,-1,0,70000, 8001 ", {8000, 8001}), ("٨", set())]
)
def test_ports_that_cannot_be_read_count_as_not_written(text: str, ports: set[int]) -> None:
    assert read_pod(raw(pod(annotations={"llm-d.ai/active-ports": text}))).active_ports == frozenset(ports)


def test_a_pods_own_word_says_where_its_kv_events_are() -> None:
    found = read_pod(
        raw(pod(annotations={"picker.dev/kv-events-port": "5557"}, labels={"picker.dev/kv-replay-port": "9"}))
    )
    assert (found.kv_events_port, found.kv_replay_port) == (5557, 9)


def test_labels_are_carried_and_bounded() -> None:
    assert read_pod(raw(pod(labels={"llm-d.ai/role": "decode"}))).labels == {"llm-d.ai/role": "decode"}
    with pytest.raises(BadObject, match="more than 256"):
        read_pod(raw(pod(labels={str(number): "" for number in range(257)})))


def test_a_pool_names_labels_and_one_to_eight_ports() -> None:
    found = read_pool(raw(pool(selector={"app": "x"}, ports=(8000, 8001), appProtocol="kubernetes.io/h2c")))
    assert found == PoolSpec({"app": "x"}, (8000, 8001), "kubernetes.io/h2c")
    assert read_pool(raw(pool())).app_protocol == "http"


@pytest.mark.parametrize(
    "found",
    [
        pool(ports=()),
        pool(ports=range(1, 10)),
        pool(ports=(8000, 8000)),
        pool(ports=(0,)),
        pool(ports=("8000",)),
        pool(selector={}),
        pool(selector={"app": "a,tier=b"}),
        pool(selector={"app": 7}),
        {"metadata": {"name": "p"}},
    ],
)
def test_a_pool_that_breaks_its_own_rules_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(BadObject, match="spec"):
        read_pool(raw(found))


def test_an_objective_has_a_priority_of_zero_unless_it_names_one() -> None:
    assert read_objective(raw(objective())) == Objective((GROUP, "p"), 0)
    assert read_objective(raw(objective(priority=-3))).priority == -3


def test_a_reference_names_its_group_or_means_the_pools_own() -> None:
    ref = {"poolRef": {"name": "p", "group": "inference.networking.x-k8s.io", "kind": "InferencePool"}}
    assert read_objective(raw(objective() | {"spec": ref})).pool == ("inference.networking.x-k8s.io", "p")


@pytest.mark.parametrize(
    "found",
    [
        objective(priority=2**31),
        objective(priority="high"),
        objective(poolRef={}),
        objective(poolRef={"name": "p", "kind": "Service"}),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(found: dict[str, Any]) -> None:
    with pytest.raises(BadObject):
        read_objective(raw(found))


def test_a_rewrites_rule_has_models_and_targets_with_their_shares() -> None:
    first, second = read_rewrite(raw(rewrite("r", to(("a", 3), ("b", 1), models=["m", "n"]), to("c", "d")))).rules
    assert (first.name, first.models) == ("r", frozenset({"m", "n"}))
    assert first.targets == (Target("a", 3), Target("b", 1))
    assert (second.models, second.targets) == (frozenset(), (Target("c", 1), Target("d", 1)))


def test_where_some_targets_have_weights_the_others_get_nothing() -> None:
    (rule,) = read_rewrite(raw(rewrite("r", to(("a", 5), "b")))).rules
    assert rule.targets == (Target("a", 5), Target("b", 0))


def test_a_match_without_a_model_is_for_all_models() -> None:
    assert read_rewrite(raw(rewrite("r", to("a") | {"matches": [{}]}))).rules[0].models == frozenset()


@pytest.mark.parametrize(
    "rule",
    [
        {"targets": []},
        to(("a", 0)),
        to(("a", 1_000_001)),
        to(""),
        to("a") | {"matches": [{"model": {"value": ""}}]},
        to("a") | {"matches": [{"model": {"type": "Regex", "value": "m.*"}}]},
    ],
)
def test_a_rule_that_cannot_be_kept_makes_the_rewrite_unusable(rule: dict[str, Any]) -> None:
    with pytest.raises(BadObject):
        read_rewrite(raw(rewrite("r", to("ok"), rule)))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = (pod(), pool(), objective(), rewrite("r", to("a", models=["m"])))


def paths(value: object, at: Place = ()) -> Iterator[Place]:
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*at, key))


def refusal(read: Callable[[bytes], object], body: bytes) -> str:
    """Why it is refused; empty if it is not."""
    try:
        read(body)
    except BadObject as error:
        return str(error)
    return ""


@given(data=st.data(), which=st.integers(0, 3), junk=ANYTHING)
def test_whatever_stands_in_any_field_an_object_is_read_or_refused(
    data: st.DataObject, which: int, junk: object
) -> None:
    found = json.loads(raw(OBJECTS[which]))
    *way, last = data.draw(st.sampled_from([path for path in paths(found) if path]))
    inner = found
    for key in way:
        inner = inner[key]
    inner[last] = junk
    assert len(refusal(READERS[which], raw(found))) <= 400


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"metadata":' * 10_000, b"\xff\xfe", b"null"])
@pytest.mark.parametrize("read", READERS)
def test_bytes_that_are_no_object_are_refused(read: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(BadObject):
        read(body)
