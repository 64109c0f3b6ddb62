"""`picker engine` over real sockets: what a client, a scraper and a KV-event subscriber see."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
import zmq
import zmq.asyncio
from prometheus_client.parser import text_string_to_metric_families

from picker.server.engine import EngineOptions, EngineServer, running
from picker.simulator import toy
from picker.simulator.blocks import chain_hashes

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
FAST = 200.0


@dataclass
class Client:
    server: EngineServer
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(path, data=data) as response:
            return response.status, json.loads(await response.read())

    async def stream(self, path: str, body: dict[str, Any]) -> list[str]:
        async with self.session.post(path, json=body | {"stream": True}) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            text = (await response.read()).decode()
        return [line.removeprefix("data: ") for line in text.split("\n\n") if line]

    async def metrics(self) -> dict[str, float]:
        """Samples by name; those of one finish reason as name/reason."""
        async with self.session.get("/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        samples = {}
        for sample in (sample for family in families for sample in family.samples):
            reason = sample.labels.get("finished_reason")
            samples[sample.name if reason is None else f"{sample.name}/{reason}"] = sample.value
        return samples


@asynccontextmanager
async def engine(**options: Any) -> AsyncIterator[Client]:
    chosen = EngineOptions(**({"port": 0, "speedup": FAST, "drain_s": 5.0} | options))
    async with running(chosen) as server, aiohttp.ClientSession(f"http://{server.address}") as session:
        yield Client(server, session)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_a_chat_answer_has_the_tokens_asked_for_and_its_usage() -> None:
    async with engine() as client:
        status, answer = await client.post(CHAT, {"model": "sim", "messages": user("hello"), "max_tokens": 7})
    assert status == 200
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert len(toy.encode(choice["message"]["content"])) == 7
    assert choice["finish_reason"] == "length"
    prompt = len(toy.render_chat([("user", "hello")]))
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 7,
        "total_tokens": prompt + 7,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_streamed_chat_says_the_same_as_one_that_is_not() -> None:
    body = {"model": "sim", "messages": user("hello"), "max_tokens": 9, "stream_options": {"include_usage": True}}
    async with engine() as client:
        _, whole = await client.post(CHAT, body)
        *events, done = await client.stream(CHAT, body)
    chunks = [json.loads(event) for event in events]
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(c["delta"]["content"] for chunk in chunks for c in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 9


async def test_usage_is_streamed_only_when_asked_for() -> None:
    async with engine() as client:
        events = await client.stream(TEXT, {"prompt": "hello", "max_tokens": 2})
    assert not any("usage" in event for event in events)


@pytest.mark.parametrize("prompt", ["four" * 4, toy.encode("four" * 4), ["four" * 4], [toy.encode("four" * 4)]])
async def test_a_prompt_may_be_text_or_token_ids(prompt: Any) -> None:
    async with engine() as client:
        _, answer = await client.post(TEXT, {"model": "sim", "prompt": prompt, "max_tokens": 2})
        _, tokens = await client.post("/tokenize", {"model": "sim", "prompt": prompt})
    assert answer["usage"]["prompt_tokens"] == 4
    assert len(toy.encode(answer["choices"][0]["text"])) == 2
    assert tokens["tokens"] == toy.encode("four" * 4)


async def test_the_next_turn_hits_what_the_last_one_left() -> None:
    async with engine(block_size=4) as client:
        first = user("x" * 100)
        _, one = await client.post(CHAT, {"messages": first, "max_tokens": 12})
        said = one["choices"][0]["message"]["content"]
        _, two = await client.post(
            CHAT, {"messages": [*first, {"role": "assistant", "content": said}, *user("and?")], "max_tokens": 2}
        )
        samples = await client.metrics()
    # All of the first exchange but its last token, whose KV was never computed.
    seen = one["usage"]["total_tokens"] - 1
    assert two["usage"]["prompt_tokens_details"]["cached_tokens"] == seen // 4 * 4
    assert samples["vllm:prefix_cache_hits_total"] == seen // 4 * 4


async def test_a_cache_salt_parts_tenants() -> None:
    async with engine() as client:
        for salt, hit in [("a", 0), ("b", 0), ("a", 48)]:
            _, answer = await client.post(TEXT, {"prompt": "x" * 4 * 50, "max_tokens": 1, "cache_salt": salt})
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == hit


async def test_a_chat_without_max_tokens_stops_by_itself_and_within_the_context() -> None:
    async with engine(max_model_len=64) as client:
        status, answer = await client.post(CHAT, {"messages": user("hello")})
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] <= 64


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (CHAT, {"model": "other", "messages": user("x")}, 404, "`other` does not exist"),
        (TEXT, {"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        (TEXT, {"prompt": "x" * 400, "max_tokens": 100}, 400, "maximum context length is 128 tokens"),
        (TEXT, {"prompt": "x", "max_tokens": 10**30}, 400, "."),
        (TEXT, {"prompt": ""}, 400, "empty"),
        (TEXT, {"prompt": []}, 400, "empty"),
        (TEXT, {}, 400, "prompt must be"),
        (TEXT, {"prompt": ["a", "b"]}, 400, "prompt must be"),
        (TEXT, {"prompt": [-1]}, 400, "prompt must be"),
        (TEXT, {"prompt": "x", "n": 2}, 400, "n = 1"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        (CHAT, b'{"messages": [', 400, "truncated"),
        (CHAT, b"\xff\xfe", 400, "."),
        (CHAT, b"", 400, "truncated"),
        (CHAT, b'{"x":' + b"[" * 200_000, 400, "."),
        (CHAT, b'{"messages":[{"role":"user","content":"\\ud800"}]}', 400, "."),
        ("/tokenize", b"[]", 400, "."),
    ],
)
async def test_errors_look_like_those_of_vllm(path: str, body: Any, status: int, message: str) -> None:
    async with engine(max_model_len=128) as client:
        got, answer = await client.post(path, body)
    assert got == status
    assert answer["error"]["code"] == status
    assert answer["error"]["type"] == {400: "BadRequestError", 404: "NotFoundError"}[status]
    assert message in answer["error"]["message"] or message == "."


async def test_models_and_health_answer() -> None:
    async with engine(model="m", max_model_len=100) as client:
        async with client.session.get("/v1/models") as response:
            (model,) = (await response.json())["data"]
        assert (model["id"], model["max_model_len"]) == ("m", 100)
        async with client.session.get("/health") as response:
            assert response.status == 200


async def test_metrics_have_the_names_and_values_of_vllm() -> None:
    async with engine(kv_tokens=1600, block_size=16) as client:
        for _ in range(2):
            await client.post(TEXT, {"prompt": "x" * 4 * 40, "max_tokens": 5})
        samples = await client.metrics()
        async with client.session.get("/metrics") as response:
            text = await response.text()
    assert samples["vllm:num_requests_running"] == 0
    assert samples["vllm:num_requests_waiting"] == 0
    assert samples["vllm:kv_cache_usage_perc"] == 0
    assert samples["vllm:prefix_cache_queries_total"] == 80
    assert samples["vllm:prefix_cache_hits_total"] == 32
    assert samples["vllm:prompt_tokens_total"] == 80
    assert samples["vllm:generation_tokens_total"] == 10
    assert samples["vllm:num_preemptions_total"] == 0
    assert samples["vllm:request_success_total/length"] == 2
    assert samples["vllm:time_to_first_token_seconds_count"] == 2
    assert samples["vllm:inter_token_latency_seconds_count"] == 8
    assert samples["vllm:e2e_request_latency_seconds_count"] == 2
    assert 'vllm:num_requests_running{engine="0",model_name="sim"}' in text
    config = next(line for line in text.splitlines() if line.startswith("vllm:cache_config_info"))
    assert 'block_size="16"' in config
    assert 'num_gpu_blocks="100"' in config


async def test_a_client_that_leaves_frees_its_place() -> None:
    async with engine(speedup=1.0, max_num_seqs=1, max_num_batched_tokens=512) as client:
        async with client.session.post(TEXT, json={"prompt": "x", "max_tokens": 10_000, "stream": True}) as response:
            await response.content.readany()
            assert (await client.metrics())["vllm:num_requests_running"] == 1
            response.close()
        status, _ = await client.post(TEXT, {"prompt": "y", "max_tokens": 1})
        assert status == 200
        assert (await client.metrics())["vllm:request_success_total/abort"] == 1


async def test_a_full_queue_is_told_with_503() -> None:
    long = {"prompt": "x", "max_tokens": 10_000, "stream": True}
    async with engine(max_num_seqs=1, max_waiting=1, speedup=1.0, drain_s=0.0) as client:
        async with client.session.post(TEXT, json=long) as running_, client.session.post(TEXT, json=long) as waiting:
            await running_.content.readany()
            assert waiting.status == 200
            status, answer = await client.post(TEXT, {"prompt": "y", "max_tokens": 1})
        assert status == 503
        assert "waiting already" in answer["error"]["message"]


async def test_a_drain_finishes_what_runs() -> None:
    async with aiohttp.ClientSession() as session:
        async with running(EngineOptions(port=0, speedup=20.0, drain_s=30.0)) as server:
            url = f"http://{server.address}{TEXT}"
            response = await session.post(url, json={"prompt": "x", "max_tokens": 300, "stream": True})
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_a_drain_that_takes_too_long_breaks_off() -> None:
    async with aiohttp.ClientSession() as session:
        async with running(EngineOptions(port=0, speedup=1.0, drain_s=0.0)) as server:
            url = f"http://{server.address}{TEXT}"
            response = await session.post(url, json={"prompt": "x", "max_tokens": 100_000, "stream": True})
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_options_that_no_engine_starts_with_are_refused() -> None:
    wrong: dict[str, dict[str, Any]] = {
        "no step-time row": {"gpu": "tpu"},
        "at least 1": {"max_num_seqs": 0},
        "speedup": {"speedup": 0.0},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            async with engine(**options):
                pass


async def test_a_taken_event_port_is_told() -> None:
    async with engine(kv_events_port=0, replay_port=0) as client:
        assert client.server.events is not None
        taken = int(client.server.events.endpoint.rpartition(":")[2])
        with pytest.raises(OSError, match="cannot bind KV events"):
            async with engine(kv_events_port=taken):
                pass


@asynccontextmanager
async def subscribed(client: Client) -> AsyncIterator[zmq.asyncio.Socket]:
    """A SUB socket that is known to be heard: batches were provoked until one arrived, and then all read."""
    events = client.server.events
    assert events is not None
    context = zmq.asyncio.Context()
    try:
        socket = context.socket(zmq.SUB)
        socket.subscribe(b"kv@")
        socket.connect(events.endpoint)
        provoked = 0
        while not await socket.poll(20):
            await client.post(TEXT, {"prompt": f"{provoked:064}", "max_tokens": 1})
            provoked += 1
        while (await next_batch(socket))[1] < provoked - 1:
            pass
        yield socket
    finally:
        context.destroy(linger=0)


async def next_batch(socket: zmq.asyncio.Socket) -> tuple[bytes, int, list[dict[str, Any]]]:
    topic, number, payload = await asyncio.wait_for(socket.recv_multipart(), 10)
    _, events, rank = msgspec.msgpack.decode(payload)
    assert rank == 0
    return topic, int.from_bytes(number, "big"), events


async def test_kv_events_name_blocks_tokens_and_parents() -> None:
    async with engine(kv_events_port=0, block_size=8) as client, subscribed(client) as socket:
        tokens = toy.encode("abcd" * 20)
        _, answer = await client.post(TEXT, {"prompt": tokens, "max_tokens": 8})
        topic, first, (prefill,) = await next_batch(socket)
        _, second, (decode,) = await next_batch(socket)
    tokens += toy.encode(answer["choices"][0]["text"])
    hashes = chain_hashes(tokens, 8)
    assert topic == f"kv@{client.server.address}@sim".encode()
    assert second == first + 1
    assert prefill == {
        "type": "BlockStored",
        "block_hashes": list(hashes[:2]),
        "parent_block_hash": None,
        "token_ids": tokens[:16],
        "block_size": 8,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None, None],
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }
    assert decode["parent_block_hash"] == hashes[1]
    assert decode["token_ids"] == tokens[16:24]


async def test_eviction_and_clearing_are_published() -> None:
    async with engine(kv_events_port=0, block_size=8, kv_tokens=32) as client, subscribed(client) as socket:
        await client.post(TEXT, {"prompt": "a" * 4 * 24, "max_tokens": 1, "cache_salt": "t"})
        stored = (await next_batch(socket))[2][-1]
        assert stored["extra_keys"] == [["t"], None, None]
        await client.post(TEXT, {"prompt": "b" * 4 * 24, "max_tokens": 1})
        _, _, (removed, _) = await next_batch(socket)
        assert removed["type"] == "BlockRemoved"
        assert removed["block_hashes"][-2:] == stored["block_hashes"][:0:-1]
        async with client.session.post("/reset_prefix_cache") as response:
            assert response.status == 200
        await client.post(TEXT, {"prompt": "c" * 4 * 24, "max_tokens": 1})
        _, _, (cleared, _) = await next_batch(socket)
        assert cleared == {"type": "AllBlocksCleared"}


async def test_missed_batches_can_be_asked_for_again() -> None:
    async with engine(kv_events_port=0, replay_port=0) as client:
        for letter in "abc":
            await client.post(TEXT, {"prompt": letter * 4 * 20, "max_tokens": 1})
        assert client.server.events is not None
        replay = client.server.events.replay_endpoint
        assert replay is not None
        context = zmq.asyncio.Context()
        try:
            socket = context.socket(zmq.DEALER)
            socket.connect(replay)
            await socket.send_multipart([b"junk"])
            await socket.send_multipart([b"", (1).to_bytes(8, "big")])
            frames = [await asyncio.wait_for(socket.recv_multipart(), 10) for _ in range(3)]
        finally:
            context.destroy(linger=0)
    topic = f"kv@{client.server.address}@sim".encode()
    assert [frame[:3] for frame in frames[:2]] == [[b"", topic, n.to_bytes(8, "big")] for n in (1, 2)]
    assert frames[2] == [b"", b"", b"\xff" * 8, b""]


async def test_token_ids_come_with_the_text_where_they_are_asked_for() -> None:
    async with engine() as client:
        body = {"prompt": "hello", "max_tokens": 5, "return_token_ids": True}
        choices = [json.loads(event)["choices"][0] for event in (await client.stream(TEXT, body))[:-1]]
        _, plain = await client.post(
            "/detokenize", {"tokens": [id for choice in choices for id in choice["token_ids"]]}
        )
    assert choices[0]["prompt_token_ids"] == toy.encode("hello")
    assert plain["prompt"] == "".join(choice["text"] for choice in choices)
