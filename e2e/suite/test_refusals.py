"""What a client gets when it is at fault: a 4xx that its library can read, and a gateway that goes on."""

from typing import Any

import pytest
from client import CHAT, COMPLETIONS, Client


def readable(error: dict[str, Any]) -> bool:
    return isinstance(error.get("message"), str) and error["message"] != "" and "type" in error


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"words"', b"\xff\xfe", b'{"model": 7}'], ids=repr)
async def test_a_body_that_cannot_be_read_is_a_bad_request(gateway: Client, path: str, body: bytes) -> None:
    answer = await gateway.post(path, body)
    assert answer.status in (400, 422)
    assert readable(answer.error())


async def test_a_request_without_a_model_is_a_bad_request(gateway: Client) -> None:
    body = gateway.chat()
    del body["model"]
    answer = await gateway.post(CHAT, body)
    assert answer.status == 400
    assert readable(answer.error())


async def test_a_model_that_there_is_not_is_not_found(gateway: Client) -> None:
    answer = await gateway.post(CHAT, gateway.chat(model="no-such-model"))
    assert answer.status == 404
    assert readable(answer.error())


async def test_a_prompt_that_no_engine_can_hold_is_a_bad_request(gateway: Client) -> None:
    answer = await gateway.post(CHAT, gateway.chat(max_tokens=100_000_000))
    assert answer.status == 400
    assert readable(answer.error())


async def test_a_large_body_is_judged_by_the_engine_not_cut_on_the_way(gateway: Client) -> None:
    """A megabyte: answered, or refused as too long; never a broken connection or a fault of the gateway."""
    answer = await gateway.post(CHAT, gateway.chat("word " * 200_000))
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert readable(answer.error())


async def test_an_unknown_path_is_not_a_fault_of_the_gateway(gateway: Client) -> None:
    assert (await gateway.post("/v1/no-such-path", gateway.chat())).status in (400, 404, 405)


async def test_after_all_refusals_requests_are_answered(gateway: Client) -> None:
    for body in (b"{", b"[]"):
        await gateway.post(CHAT, body)
    assert (await gateway.post(CHAT, gateway.chat())).status == 200
