import json

import pytest

from picker.requests.reader import Reader, ReaderSettings
from picker.requests.request import BadRequest, Request
from picker.requests.steering import STEERING, SteeringPolicy

CHAT = "/v1/chat/completions"
PLAIN = b'{"model":"m", "messages":[{"role":"user","content":"kv_transfer_params"}]}'


def read(policy: SteeringPolicy, body: bytes, path: str = CHAT) -> Request:
    reader = Reader(ReaderSettings(steering=policy))
    return reader.finish(reader.parse(path, {}, body))


def with_field(field: bytes) -> bytes:
    return PLAIN[:-1] + b", " + field + b"}"


SMUGGLED = [
    b'"kv_transfer_params":{"do_remote_prefill":true}',
    b'"kv\\u005ftransfer_params":{"do_remote_prefill":true}',
    b'"kv_transfer_params":null,"kv_transfer_params":{"a":1}',
    b'"kv_transfer_params":{"a":1},"kv_transfer_params":null',
    b'"kv_transfer_params":{"a":1},"\\u006bv_transfer_params":null',
    b'"vllm_xargs":{"kv_transfer_params":"x"}',
    b'"vllm_xargs":{"ec\\u005ftransfer_params":["x"]}',
    b'"vllm_xargs":{"kv_transfer_params":"x"},"vllm_xargs":{}',
    b'"ec_transfer_params":{}',
]


@pytest.mark.parametrize("field", SMUGGLED)
def test_refuse_names_the_field(field: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read("refuse", with_field(field))
    assert caught.value.status == 400
    assert "_transfer_params" in caught.value.message
    assert "_transfer_params" in (caught.value.param or "")


@pytest.mark.parametrize("field", SMUGGLED)
def test_strip_takes_the_field_out_and_keeps_every_other_byte(field: bytes) -> None:
    request = read("strip", with_field(field))
    assert request.body is not None
    assert request.body.startswith(PLAIN[:-1])
    rest = json.loads(request.body)
    assert rest.pop("vllm_xargs", {}) == {}
    assert rest == json.loads(PLAIN)


@pytest.mark.parametrize("field", SMUGGLED)
def test_pass_leaves_the_body_alone(field: bytes) -> None:
    assert read("pass", with_field(field)).body is None


@pytest.mark.parametrize("name", STEERING)
def test_every_listed_field_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        read("refuse", with_field(f'"{name}":1'.encode()))


@pytest.mark.parametrize(
    "field",
    [
        b'"kv_transfer_params":null',
        b'"vllm_xargs":{"session_id":"x"}',
        b'"vllm_xargs":3',
        b'"x":{"kv_transfer_params":1}',
    ],
)
@pytest.mark.parametrize("policy", ["refuse", "strip"])
def test_what_steers_nothing_is_let_through_untouched(policy: SteeringPolicy, field: bytes) -> None:
    assert read(policy, with_field(field)).body is None


def test_generate_takes_steering_through_its_sampling_parameters() -> None:
    body = b'{"model":"m","token_ids":[1],"sampling_params":{"n":1,"extra_args":{"kv_transfer_params":{}, "z":1}}}'
    with pytest.raises(BadRequest, match=r"sampling_params\.extra_args\.kv_transfer_params"):
        read("refuse", body, "/inference/v1/generate")
    stripped = read("strip", body, "/inference/v1/generate").body
    assert stripped == b'{"model":"m","token_ids":[1],"sampling_params":{"n":1,"extra_args":{ "z":1}}}'


@pytest.mark.parametrize("policy", ["refuse", "strip"])
def test_bodies_that_pass_through_are_stripped_and_never_refused(policy: SteeringPolicy) -> None:
    body = b'{"kv_transfer_params":{"a":1},"query":"q"}'
    assert read(policy, body, "/v1/score").body == b'{"query":"q"}'


def test_batches_and_other_chat_routes_are_no_way_around() -> None:
    for path in ("/v1/chat/completions/batch", "/v2/chat", "/v1/messages"):
        with pytest.raises(BadRequest, match="kv_transfer_params"):
            read("refuse", with_field(b'"kv_transfer_params":{}'), path)
