"""Body fields that steer engines from outside. They belong to routers and sidecars; a client's own are not let through.

One NIXL field with a wrong length ends a vLLM engine's process, so the default is not to pass any of them.
"""

from collections.abc import Iterator
from operator import attrgetter
from typing import Literal

from picker.requests.bodies import ABSENT, Body, TokenIds, bad
from picker.requests.splice import members, remove, replace

SteeringPolicy = Literal["refuse", "strip", "pass"]

STEERING: dict[str, str] = {
    "kv_transfer_params": "vLLM: names remote KV blocks to pull; a length that does not fit kills the engine's worker, "
    "and its prompt_token_ids replace the prompt",
    "ec_transfer_params": "vLLM: the same for encoder-cache entries",
    "bootstrap_host": "SGLang: host that a decode engine pulls KV from",
    "bootstrap_port": "SGLang: port of that host",
    "bootstrap_room": "SGLang: pairs a prefill with a decode; a wrong one waits until its time-out",
    "data_parallel_rank": "SGLang: chooses the rank around the pick",
    "routed_dp_rank": "SGLang: the same, newer name",
    "disagg_prefill_dp_rank": "SGLang: rank that KV is pulled from",
    "disaggregated_params": "TensorRT-LLM: context request and KV addresses of a disaggregated pair",
}
"""Field and why it is not a client's."""

# vLLM hands vllm_xargs and sampling_params.extra_args to the engine, where a transfer field in them counts as well.
_CARRIERS = frozenset({"vllm_xargs", "sampling_params", "extra_args"})
_FIELDS = attrgetter(*STEERING)
_NONE = (ABSENT,) * len(STEERING)


def has_steering(decoded: Body) -> bool:
    """Whether a closer look is due: a field or one of its carriers is there."""
    if decoded.vllm_xargs is not ABSENT:
        return True
    if isinstance(decoded, TokenIds) and decoded.sampling_params.extra_args is not ABSENT:
        return True
    return bool(_FIELDS(decoded) != _NONE)


def steering_fields(body: bytes) -> list[str]:
    """Dotted names of the fields found, at any of their occurrences; a null one steers nothing."""
    return list(_found(body, ""))


def apply(policy: SteeringPolicy, body: bytes) -> bytes:
    """The body that may go on: the same object where nothing had to go. Raises BadRequest under `refuse`."""
    if policy == "pass":
        return body
    found = steering_fields(body)
    if not found:
        return body
    if policy == "refuse":
        raise bad(
            f"'{found[0]}' steers the engine and is not accepted from clients", param=found[0], code="field_not_allowed"
        )
    return _stripped(body, nested=0)


def _found(body: bytes, prefix: str) -> Iterator[str]:
    for member in members(body):
        value = body[slice(*member.value)]
        if member.name in STEERING and value != b"null":
            yield prefix + member.name
        elif member.name in _CARRIERS and value[:1] == b"{" and prefix.count(".") < 2:
            yield from _found(value, f"{prefix}{member.name}.")


def _stripped(body: bytes, nested: int) -> bytes:
    body = remove(body, STEERING)
    if nested < 2:
        for name in _CARRIERS & {member.name for member in members(body)}:
            body = replace(body, name, lambda value: _stripped(value, nested + 1) if value[:1] == b"{" else value)
    return body
