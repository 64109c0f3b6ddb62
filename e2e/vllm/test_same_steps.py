"""The simulator's engine takes the steps that a real vLLM takes, one by one.

Arrivals are drawn at random and counted in steps, so neither clocks nor speeds matter. Compared at every step: which
requests run and wait, in which order; how many tokens each computes; prefix hits at admission; preemptions; free KV
blocks; KV events in their order, up to the names of blocks. And the cached tokens that each answer reports.
"""

import asyncio
import json
import os
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from picker.server.vllm_engine import VllmEngine, environment
from picker.server.vllm_install import RECIPES, VllmInstall
from picker.simulator.blocks import chain_hashes
from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, KvEvent, Limits, Removed, Sequence, Stored
from picker.simulator.steptime import load_row

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

FILES = 6
REQUESTS = 60
BLOCK = 32
"""Tokens; vLLM's attention on CPU takes multiples of 32 only."""
CONTEXT = 512

Json = dict[str, Any]


def arrivals(draw: random.Random) -> list[Json]:
    """Requests that share prefixes, repeat and continue one another, and sometimes give up."""
    prefixes = [tokens(draw, BLOCK * draw.randint(1, 8) + draw.choice((0, 0, 5))) for _ in range(4)]
    made: list[Json] = []
    longest: list[int] = []
    step = 0
    for i in range(REQUESTS):
        step += draw.choice((0, 0, 1, 2, 5, 15))
        own, output = tokens(draw, draw.choice((1, 20, BLOCK, 70, 120))), draw.choice((1, 8, 50, 120))
        room = CONTEXT - len(own) - output
        kind, earlier = draw.random(), [k for k in range(i) if longest[k] <= room]
        follows: Json = {}
        if kind < 0.3 and earlier:
            followed = draw.choice(earlier)
            follows, prompt = {"follows": str(followed)}, own
            longest.append(longest[followed] + len(own) + output)
        else:
            prompt = prefixes[0] if kind < 0.45 else draw.choice(prefixes) + own if kind < 0.8 else own
            longest.append(len(prompt) + output)
        gives_up = {"abort": step + draw.randint(0, 60)} if draw.random() < 0.1 else {}
        made.append({"id": str(i), "step": step, "tokens": prompt, "output": output, **follows, **gives_up})
    return made


def tokens(draw: random.Random, count: int) -> list[int]:
    return draw.choices(range(3, 4096), k=count)


def file(seed: int) -> Json:
    """Arrivals, and an engine that is too small for them."""
    draw = random.Random(seed)
    engine = {
        "dtype": "bfloat16",
        "enforce_eager": True,
        "async_scheduling": False,
        "kv_cache_memory_bytes": 8 << 20,
        "block_size": BLOCK,
        "max_model_len": CONTEXT,
        "max_num_seqs": draw.randint(3, 8),
        "max_num_batched_tokens": draw.choice((24, 40, 64, 128)),
        "num_gpu_blocks_override": draw.randint(CONTEXT // BLOCK + 1, 36),
    }
    return {"engine": engine, "arrivals": arrivals(draw)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recorded(install: VllmInstall, tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """What vLLM did with each file."""
    folder, model = tmp_path_factory.mktemp("steps"), install.model("tiny")
    (folder / "files").write_text(json.dumps([file(seed) for seed in range(FILES)]))
    process = await asyncio.create_subprocess_exec(
        *(install.venv / "bin" / "python", RECIPES / "record_steps.py", model, folder / "files", folder / "steps"),
        # A second thread makes steps as short as the tiny model's several times slower where cores are shared.
        env={**os.environ, **environment(VllmEngine(model, 0, 0, 0)), "OMP_NUM_THREADS": "1"},
    )
    assert await process.wait() == 0
    steps: list[Json] = json.loads((folder / "steps").read_text())
    return steps


@pytest.mark.parametrize("seed", range(FILES))
async def test_every_step_is_the_same(recorded: list[Json], seed: int) -> None:
    simulated = simulate(file(seed), recorded[seed]["requests"])
    pairs = zip(unnamed(simulated["steps"]), unnamed(recorded[seed]["steps"]), strict=True)
    for number, (ours, theirs) in enumerate(pairs):
        assert ours == theirs, f"step {number}"


@pytest.mark.parametrize("seed", range(FILES))
async def test_every_answer_reports_the_same_cached_tokens(recorded: list[Json], seed: int) -> None:
    reported = {name: request["cached"] for name, request in recorded[seed]["requests"].items() if request["output"]}
    simulated = simulate(file(seed), recorded[seed]["requests"])
    assert {name: simulated["cached"][name] for name in reported} == reported


@pytest.mark.parametrize("seed", range(FILES))
async def test_the_engine_was_short_of_everything(recorded: list[Json], seed: int) -> None:
    """Or else equal steps would show little."""
    seats = file(seed)["engine"]["max_num_seqs"]
    steps = [step for step in recorded[seed]["steps"] if step]
    queued = [step for step in steps if step["waiting"] and not step["preempted"]]
    admitted = [name for step in steps for name in step["hits"]]
    assert any(len(step["running"]) == seats for step in queued)
    assert any(len(step["running"]) < seats for step in queued)
    assert any(step["preempted"] for step in steps)
    assert len(admitted) > len(set(admitted))
    assert any(count > 1 for step in steps for name, count in step["tokens"].items() if name not in step["hits"])
    assert sum(hits > 0 for step in steps for hits in step["hits"].values()) > REQUESTS / 4
    assert sum(verb == "removed" for step in steps for verb, *_ in step["events"]) > 100


def simulate(played: Json, requests: Json) -> Json:
    """The same arrivals on the simulator's engine, told as vLLM's are; `requests` says what the tokens were."""
    flags, made = played["engine"], played["arrivals"]
    limits = Limits(BLOCK, flags["max_num_seqs"], flags["max_num_batched_tokens"], CONTEXT)
    # One of vLLM's blocks is its own.
    engine = Engine(load_row(), limits, kv_tokens=(flags["num_gpu_blocks_override"] - 1) * BLOCK, events=True)
    sequences: dict[str, Sequence] = {}
    steps: list[Json | None] = []
    last = max(max(arrival["step"], arrival.get("abort", 0)) for arrival in made)
    while len(steps) <= last or engine.running or engine.waiting:
        for arrival in made:
            if arrival["step"] == len(steps):
                name, said = arrival["id"], requests[arrival["id"]]
                hashes = chain_hashes(said["prompt"] + said["output"], BLOCK)
                request = EngineRequest(name, len(said["prompt"]), arrival["output"], hashes)
                sequences[name] = engine.submit(request)
        for arrival in made:
            if arrival.get("abort") == len(steps):
                engine.abort(arrival["id"])
        steps.append(step(engine))
    return {"steps": steps, "cached": {name: sequence.cached_tokens for name, sequence in sequences.items()}}


def step(engine: Engine) -> Json | None:
    ran = set(names(engine.running))
    begun = engine.schedule()
    if begun is None:
        return None
    computed = {sequence.request.id: new for sequence, new in begun.prefills}
    told = {
        "tokens": dict.fromkeys(names(begun.emitting), 1) | computed,
        "hits": {s.request.id: s.computed - new for s, new in begun.prefills if s.request.id not in ran},
        "preempted": sorted(names(begun.preempted)),
        "running": names(engine.running),
        "waiting": list(engine.waiting),
        "free_blocks": engine.pool.free,
        "events": [line for event in begun.events for line in lines(event)],
    }
    engine.complete(begun)
    return told


def names(sequences: Iterable[Sequence]) -> list[str]:
    return [sequence.request.id for sequence in sequences]


def lines(event: KvEvent) -> Iterator[list[Any]]:
    if isinstance(event, Stored):
        yield ["stored", event.parent, *event.hashes.tolist()]
    elif isinstance(event, Removed):
        yield from (["removed", block] for block in event.hashes.tolist())


def unnamed(steps: list[Json | None]) -> list[Json | None]:
    """Blocks numbered as they are first told of, since each engine hashes in its own way."""
    numbers: dict[int | None, int] = {}

    def line(verb: str, *blocks: int | None) -> list[Any]:
        return [verb, *(numbers.setdefault(block, len(numbers)) for block in blocks)]

    return [step and {**step, "events": [line(*event) for event in step["events"]]} for step in steps]
