"""A running request moves between two real engines and its KV goes by NIXL: nothing of its prompt is computed twice."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from two_engines import Two, two_engines
from words import sentence

from picker.server.vllm_install import VllmInstall

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

STEPS = {"fixed_ms": 20.0, "decode_ms": 5.0, "context_ms": 1000.0, "prefill_ms": 1.0}
PARTS: dict[str, Any] = {
    # Who outgrows 8 tokens goes to b, whatever that saves.
    "a": {"high": 8, "firm": True, "following": ["b"], "step_model": STEPS},
    "b": {"step_model": STEPS},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(install: VllmInstall) -> AsyncIterator[Two]:
    async with two_engines(install, "e2e-nixl", 60, pull=True) as both:
        yield both


async def counts(two: Two, url: str, name: str, label: str) -> dict[str, float]:
    """A counter of that page, by one of its labels."""
    families = text_string_to_metric_families(await two.engines["a"].get(url))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels[label]: sample.value for sample in samples}


async def test_a_request_that_moves_takes_its_kv_along(two: Two) -> None:
    body = {"prompt": sentence(300, 7), "max_tokens": 200, "ignore_eos": True}
    alone = await two.stream(two.engines["a"].engine.url, "/v1/completions", body)
    asked_b = two.engines["b"].engine.url + "/metrics", "vllm:prompt_tokens_by_source_total", "source"
    before = await counts(two, *asked_b)

    two.follow(PARTS)
    heard = await two.stream(f"http://{two.proxies['a'].address}", "/v1/completions", body)

    after = await counts(two, *asked_b)
    came = {source: after[source] - before.get(source, 0.0) for source in after}
    page = f"http://{two.proxies['a'].address}/handoff/metrics"
    moves = await counts(two, page, "picker_handoff_moves_total", "outcome")
    print(f"{heard[3]}, prompt tokens at the second engine by source: {came}, gap {await gap(two, page)}")
    assert heard == alone
    assert moves["went-on"] == 1
    assert await counts(two, page, "picker_handoff_copies_total", "way") == {"pull": 1}
    assert came["external_kv_transfer"] >= heard[3]["prompt_tokens"]
    assert came["local_compute"] < heard[3]["prompt_tokens"] / 4


async def gap(two: Two, page: str) -> float:
    """What the client waited at the change, in seconds."""
    return (await counts(two, page, "picker_handoff_gap_seconds_sum", "why"))["move"]
