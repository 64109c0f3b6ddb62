import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.requests.splice import members, remove, replace, set_model

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
names = st.text(max_size=6) | st.sampled_from(["kv", "model", 'q"uote', "back\\slash"])
layouts = st.sampled_from([{"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": "\t"}])


@given(st.dictionaries(names, values, max_size=5), layouts)
def test_the_members_found_are_those_of_a_json_parser(content: dict[str, Any], layout: dict[str, Any]) -> None:
    body = json.dumps(content, **layout).encode()
    found = {member.name: json.loads(body[slice(*member.value)]) for member in members(body)}
    assert found == content


@given(st.dictionaries(names, values, max_size=5), layouts, names)
def test_removing_a_name_leaves_the_rest_equal(content: dict[str, Any], layout: dict[str, Any], name: str) -> None:
    body = json.dumps(content, **layout).encode()
    assert json.loads(remove(body, {name})) == {key: value for key, value in content.items() if key != name}


def test_every_other_byte_stays_as_it_was() -> None:
    body = b' {"a" : 1.0e0,\n"kv":{"x":"}"} , "b":"\\u00e9" }\n'
    assert remove(body, {"kv"}) == b' {"a" : 1.0e0, "b":"\\u00e9" }\n'


def test_all_occurrences_and_spellings_of_a_name_go() -> None:
    assert remove(b'{"kv":1,"a":2,"k\\u0076":3,"kv":4}', {"kv"}) == b'{"a":2}'


def test_the_last_member_can_go() -> None:
    assert remove(b'{"kv":1}', {"kv"}) == b"{}"


def test_only_top_level_names_count() -> None:
    body = b'{"a":{"kv":1},"b":["kv"],"c":"\\"kv\\":1"}'
    assert remove(body, {"kv"}) == body


def test_a_value_is_replaced_in_place() -> None:
    assert replace(b'{"n": 1 , "m":1}', "n", lambda value: value + b"0") == b'{"n": 10 , "m":1}'


def test_the_model_is_replaced_at_every_occurrence() -> None:
    assert set_model(b'{"model":"a", "x":[1], "mod\\u0065l": "b"}', 'ne"w') == (
        b'{"model":"ne\\"w", "x":[1], "mod\\u0065l": "ne\\"w"}'
    )


@pytest.mark.parametrize("body", [b"{}", b'{ "x":1}'])
def test_a_model_is_put_in_where_there_is_none(body: bytes) -> None:
    assert json.loads(set_model(body, "m")) == json.loads(body) | {"model": "m"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":[', b'{"a" 1}', b'{"a":1 "b":2}']
)
def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a JSON object|no |does not end"):
        list(members(body))
