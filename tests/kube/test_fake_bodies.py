"""What the fake makes of bodies: protobuf envelopes as kubectl sends them, patches, and bytes that are neither."""

import contextlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kube_fake import ApiError, patches, protobuf

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value


def entry(number: int, key: str, value: bytes) -> bytes:
    return field(number, field(1, key.encode()) + field(2, value))


def envelope(kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, b"v1") + field(2, kind.encode())) + field(2, raw)


META = field(1, field(1, b"name") + field(3, b"llm") + entry(11, "app", b"x"))
READ = {"name": "name", "namespace": "llm", "labels": {"app": "x"}}


def test_a_secret_in_an_envelope() -> None:
    decoded = protobuf.decode(envelope("Secret", META + entry(2, "key", b"value") + field(3, b"Opaque")))
    assert decoded == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": READ,
        "data": {"key": "dmFsdWU="},
        "type": "Opaque",
    }


def test_a_config_map_in_an_envelope() -> None:
    decoded = protobuf.decode(envelope("ConfigMap", META + entry(2, "text", b"words") + entry(3, "bytes", b"\xff")))
    assert decoded is not None
    assert (decoded["data"], decoded["binaryData"]) == ({"text": "words"}, {"bytes": "/w=="})


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(ApiError) as caught:
        protobuf.decode(envelope("Pod", META))
    assert caught.value.code == 415


@given(st.binary(max_size=60))
@example(b"\x08\x01")
@example(field(1, field(1, b"\xff")))
def test_bytes_that_are_no_envelope_are_the_clients_fault(raw: bytes) -> None:
    for body in (raw, b"k8s\x00" + raw, envelope("Secret", raw)):
        with contextlib.suppress(ApiError):
            protobuf.decode(body)


@given(JSON, JSON)
def test_a_merge_patch_done_twice_is_done_once(target: Any, patch: Any) -> None:
    once = patches.merge(target, patch)
    assert patches.merge(once, patch) == once


@given(OBJECTS, OBJECTS)
def test_the_fields_of_a_merge_patch_are_there_and_nulls_are_gone(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    result = patches.merge(target, patch)
    assert result.keys() == {name for name in target.keys() | patch.keys() if patch.get(name, 0) is not None}


@given(OBJECTS, OBJECTS, OBJECTS)
def test_an_apply_leaves_what_others_have_set(
    current: dict[str, Any], before: dict[str, Any], now: dict[str, Any]
) -> None:
    result = patches.apply(current, now, before)
    assert result.keys() == (current.keys() - before.keys()) | now.keys()


@given(
    JSON, st.lists(st.fixed_dictionaries({"op": st.sampled_from(["add", "remove", "replace", "move", "test", "x"])}))
)
def test_a_json_patch_changes_a_copy_or_nothing(target: Any, operations: list[dict[str, Any]]) -> None:
    before = repr(target)
    with contextlib.suppress(ApiError):
        patches.json_patch(target, [{**each, "path": "/a", "from": "/b", "value": 1} for each in operations])
    assert repr(target) == before


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/list/-", "value": 3}], {"list": [1, 2, 3], "a/b": 0}),
        ([{"op": "add", "path": "/list/0", "value": 0}], {"list": [0, 1, 2], "a/b": 0}),
        ([{"op": "remove", "path": "/a~1b"}], {"list": [1, 2]}),
        ([{"op": "move", "from": "/a~1b", "path": "/c"}], {"list": [1, 2], "c": 0}),
        ([{"op": "copy", "from": "/list", "path": "/copy"}], {"list": [1, 2], "a/b": 0, "copy": [1, 2]}),
    ],
)
def test_json_patch_operations(operations: list[dict[str, Any]], result: Any) -> None:
    assert patches.json_patch({"list": [1, 2], "a/b": 0}, operations) == result


@pytest.mark.parametrize("path", ["/list/9", "/none/x", "list", "/list/x"])
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(ApiError) as caught:
        patches.json_patch({"list": [1]}, [{"op": "replace", "path": path, "value": 0}])
    assert caught.value.code == 422


def test_a_strategic_patch_merges_entries_by_name_and_deletes_one() -> None:
    pod = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
    change = [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c"}]
    assert patches.strategic(pod, {"containers": change}) == {
        "containers": [{"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}]}, {"name": "c"}]
    }
