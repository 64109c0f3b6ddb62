"""Streams that change engines, as processes: what the client reads is what one engine alone would have said."""

import asyncio
import contextlib
import json
import random
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import SimulatedEngines, command, engine_argv, until_ok

GPU = "h100_sxm/llama-3-8b tp1"
STEP = {"fixed_ms": 6.0, "decode_ms": 2.0, "context_ms": 100.0, "prefill_ms": 0.02}
OUTGROWN = 150


@dataclass
class Pair:
    """Engines `a` and `b`, a proxy beside each; lengths above OUTGROWN tokens belong to b."""

    engines: dict[str, str]
    proxies: dict[str, str]
    children: dict[str, Child]
    session: aiohttp.ClientSession

    async def ask(self, url: str, seed: int, **more: Any) -> dict[str, Any]:
        """What a client has at the end: text, ids of the chunks, finish_reason, usage."""
        words = " ".join(random.Random(seed).choices(["one", "two", "three", "four", "five", "six"], k=30))
        body = {"model": "sim", "messages": [{"role": "user", "content": words}], "max_tokens": 250, **more}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        async with self.session.post(f"{url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            events = (await response.text()).split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events if event and "[DONE]" not in event]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return {
            "text": "".join(choice["delta"].get("content", "") for choice in choices),
            "roles": [choice["delta"]["role"] for choice in choices if "role" in choice["delta"]],
            "ids": len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}),
            "finish": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
            "usage": {name: chunks[-1]["usage"][name] for name in ("prompt_tokens", "completion_tokens")},
            "done": "[DONE]" in events[-2],
        }

    async def counted(self, proxy: str, name: str) -> float:
        async with self.session.get(f"{self.proxies[proxy]}/handoff/metrics") as response:
            families = list(text_string_to_metric_families(await response.text()))
        samples = [sample for family in families for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name)


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        children, token, members = (
            Children(Path(folder) / "logs"),
            Path(folder) / "token",
            Path(folder) / "members.json",
        )
        token.write_text("a secret that is long enough\n")
        ports = free_ports(8)
        engines = {name: f"http://{HOST}:{ports[i]}" for i, name in enumerate("ab")}
        proxies = {name: f"http://{HOST}:{ports[6 + i]}" for i, name in enumerate("ab")}
        try:
            started = {}
            for i, name in enumerate("ab"):
                argv = engine_argv(ports[i], ports[2 + i], ports[4 + i], GPU, SimulatedEngines([GPU]))
                started[name] = await children.start(f"engine-{name}", argv)
            for i, name in enumerate("ab"):
                stage = {"high": OUTGROWN, "following": ["b"]} if name == "a" else {}
                members.write_bytes(msgspec.json.encode({"engines": proxies, "step_model": STEP, **stage}))
                argv = ["--name", name, "--engine", engines[name], "--host", HOST, "--port", str(ports[6 + i])]
                argv += ["--pool-token-file", str(token), "--members", str(members)]
                started[f"proxy-{name}"] = await children.start(f"proxy-{name}", [*command("handoff"), *argv])
                await until_ok(f"{engines[name]}/health", started[name])
                await until_ok(f"{proxies[name]}/health", started[f"proxy-{name}"])
            async with aiohttp.ClientSession() as session:
                yield Pair(engines, proxies, started, session)
        finally:
            await children.stop()


@pytest.mark.timeout(120)
async def test_requests_that_outgrow_their_stage_move_and_nobody_sees_it() -> None:
    async with pair() as there:
        alone = await asyncio.gather(*(there.ask(there.engines["b"], seed) for seed in range(4)))
        heard = await asyncio.gather(*(there.ask(there.proxies["a"], seed) for seed in range(4)))
        assert heard == alone
        assert await there.counted("a", "picker_handoff_moves_total") >= 2
        assert await there.counted("a", "picker_handoff_gap_seconds_count") >= 1
        assert await there.counted("a", "picker_handoff_breaks_total") == 0


@pytest.mark.timeout(120)
async def test_streams_outlive_a_killed_engine() -> None:
    async with pair() as there:
        alone = await asyncio.gather(*(there.ask(there.engines["b"], seed, max_tokens=120) for seed in range(4)))
        asking = [asyncio.create_task(there.ask(there.proxies["a"], seed, max_tokens=120)) for seed in range(4)]
        while await there.counted("a", "picker_handoff_running") < 4:
            await asyncio.sleep(0.02)
        there.children["a"].signal(signal.SIGKILL)
        assert await asyncio.gather(*asking) == alone
        assert await there.counted("a", "picker_handoff_failovers_total") >= 4
        assert await there.ask(there.proxies["a"], 9) == await there.ask(there.engines["b"], 9)
