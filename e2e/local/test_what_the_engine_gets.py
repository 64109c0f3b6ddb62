"""What is left of a client's request when it reaches the engine, and what picker never lets through."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gateway import Gateway, Heard, Scribe, chat, gateway, new_words, scribe

from picker.server.up.stack import EngineAddress

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAYS = [("access-log", "full-duplex"), ("access-log", "buffered")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS, ids="-".join)
async def way(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Gateway, Scribe]]:
    async with (
        scribe() as engine,
        gateway(*request.param, engines=0, more=[EngineAddress(engine.address)]) as running,
    ):
        yield running, engine


async def sent(way: tuple[Gateway, Scribe], body: object, **headers: str) -> Heard:
    running, engine = way
    reply = await running.ask(body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    assert reply.ok
    return engine.last


async def test_a_body_that_needs_no_change_arrives_byte_for_byte(way: tuple[Gateway, Scribe]) -> None:
    body = json.dumps(chat(new_words(60_000)), indent=3).encode()
    assert len(body) > 300_000
    assert (await sent(way, body)).body == body


async def test_a_model_rewrite_changes_the_name_and_nothing_else(way: tuple[Gateway, Scribe]) -> None:
    body = chat(new_words(), stream=True, temperature=0.25)
    heard = await sent(way, body, x_gateway_model_name_rewrite="a-model-with-a-longer-name")
    assert json.loads(heard.body) == {**body, "model": "a-model-with-a-longer-name"}
    assert heard.headers.get("content-length", str(len(heard.body))) == str(len(heard.body))


async def test_fields_that_steer_engines_are_taken_out(way: tuple[Gateway, Scribe]) -> None:
    body = chat(new_words())
    steering = {"kv_transfer_params": {"remote_host": "10.0.0.9"}, "vllm_xargs": {"kv_transfer_params": "{}"}}
    heard = await sent(way, {**body, **steering})
    assert b"kv_transfer_params" not in heard.body
    assert json.loads(heard.body)["messages"] == body["messages"]


@pytest.mark.parametrize("elsewhere", ["10.255.255.1:80", "127.0.0.1:1", "nonsense"])
async def test_a_destination_of_the_clients_own_is_ignored_and_not_passed_on(
    way: tuple[Gateway, Scribe], elsewhere: str
) -> None:
    heard = await sent(
        way,
        chat(new_words()),
        x_gateway_destination_endpoint=elsewhere,
        x_gateway_destination_endpoint_subset=elsewhere,
        x_gateway_destination_endpoint_served=elsewhere,
        x_prefiller_host_port=elsewhere,
        x_data_parallel_rank="3",
    )
    assert elsewhere not in heard.headers.values()
    assert heard.headers["x-gateway-destination-endpoint"] == way[1].address
    assert "x-prefiller-host-port" not in heard.headers
    assert "x-data-parallel-rank" not in heard.headers


async def test_nothing_of_all_this_stays_in_the_ledger(way: tuple[Gateway, Scribe]) -> None:
    running, _ = way
    await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(5)))
    await running.at_rest()
