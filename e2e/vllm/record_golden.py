"""Record what a real vLLM says, for tests that have none: `.venv/bin/python e2e/vllm/record_golden.py [FOLDER]`.

Writes /metrics of an idle and of a busy engine, and the KV-event frames of a short session with the requests behind
them: turns of one conversation, a branch, a salted cache, token-id prompts, evictions (the cache holds 40 blocks),
a reset, and a replay.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from session import BLOCK_BYTES, PORTS, Answer, Session, serving
from words import sentence

from picker.server.vllm_engine import VllmEngine
from picker.server.vllm_install import CHECKOUT, ensure_vllm

GOLDEN = CHECKOUT / "tests" / "engines" / "golden"
QUIET_MS = 500
"""No event for this long after an answer: all of its events have come."""


class Recorder:
    """Asks, and files the frames that follow each answer under it."""

    def __init__(self, session: Session, events: zmq.asyncio.Socket) -> None:
        self._session = session
        self._events = events
        self.steps: list[dict[str, Any]] = []

    async def ask(self, path: str, **body: Any) -> Answer:
        answer = await self._session.ask(path, {"temperature": 0, **body})
        self.steps.append(
            {
                "path": path,
                "body": body,
                "prompt_token_ids": answer.prompt,
                "output_token_ids": answer.output,
                "cached_tokens": answer.cached,
                "frames": await self.frames(),
            }
        )
        return answer

    async def chat(self, messages: list[dict[str, str]], **fields: Any) -> list[dict[str, str]]:
        """Ask, and return the conversation with the answer at its end."""
        answer = await self.ask("/v1/chat/completions", messages=messages, max_tokens=24, **fields)
        return [*messages, {"role": "assistant", "content": answer.text}]

    async def reset(self) -> None:
        await self._session.post("/reset_prefix_cache", {})
        self.steps.append({"path": "/reset_prefix_cache", "frames": await self.frames()})

    async def frames(self) -> list[list[str]]:
        frames = []
        while await self._events.poll(QUIET_MS):
            frames.append([_text(frame) for frame in await self._events.recv_multipart()])
        return frames


async def replayed(endpoint: str, first: int) -> list[list[str]]:
    """The engine's answer to a replay request from sequence number `first`, end marker included."""
    with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        await socket.send_multipart([b"", first.to_bytes(8, "big")])
        answers = [await socket.recv_multipart()]
        while answers[-1][-1]:
            answers.append(await socket.recv_multipart())
        return [[_text(frame) for frame in answer] for answer in answers]


async def conversation(recorder: Recorder) -> None:
    system = {"role": "system", "content": "You are the guide of a small museum. " + sentence(40)}
    first = await recorder.chat([system, _user("Which rooms are there? " + sentence(20))])
    second = await recorder.chat([*first, _user("Tell me of the first one.")])
    await recorder.chat([*second, _user("And of the last?")])
    await recorder.chat([*first, _user("Is there a garden? " + sentence(12))])
    await recorder.chat([system, _user("Which rooms are there? " + sentence(20))], cache_salt="tenant-a")
    salted = await recorder.chat([system, _user("Which rooms are there? " + sentence(20))], cache_salt="tenant-a")
    ids = list(range(1000, 1100))
    await recorder.ask("/v1/completions", prompt=ids, max_tokens=8)
    await recorder.ask("/v1/completions", prompt=ids[:64], max_tokens=40)
    await recorder.ask("/v1/completions", prompt=[*ids, *range(2000, 2400)], max_tokens=4)
    await recorder.ask("/v1/completions", prompt=list(range(3000, 3600)), max_tokens=4)
    await recorder.chat([*second, _user("And of the last?")])
    await recorder.reset()
    await recorder.chat([*salted, _user("Thank you.")], cache_salt="tenant-a")
    await recorder.chat(second[:-1])
    # The last token is always computed, and its block with it: asked twice, that block lies in the cache twice. Then
    # one copy is used again and the other is evicted.
    twice = list(range(5000, 5064))
    await recorder.ask("/v1/completions", prompt=twice, max_tokens=1)
    await recorder.ask("/v1/completions", prompt=twice, max_tokens=1)
    await recorder.ask("/v1/completions", prompt=list(range(6000, 6600)), max_tokens=1)
    await recorder.ask("/v1/completions", prompt=[*twice, *range(7000, 7032)], max_tokens=1)
    await recorder.ask("/v1/completions", prompt=list(range(8000, 8620)), max_tokens=1)
    await recorder.ask("/v1/completions", prompt=[*twice, *range(7000, 7032)], max_tokens=1)


async def busy_metrics(session: Session) -> str:
    """The page while three requests run and one waits for a place in the batch."""
    asked = [
        asyncio.create_task(
            session.ask("/v1/completions", {"prompt": [900 + i] * 70, "max_tokens": 200, "ignore_eos": True})
        )
        for i in range(4)
    ]
    page = await session.metrics()
    while 'vllm:num_requests_waiting{engine="0",model_name="smollm2"} 1.0' not in page:
        page = await session.metrics()
    await asyncio.gather(*asked)
    return page


async def main(folder: Path) -> None:
    install = await ensure_vllm()
    port, events_port, replay_port = PORTS[:3]
    engine = VllmEngine(
        install.model("smollm2"), port, events_port, replay_port, core=1, max_model_len=1024, max_num_seqs=3,
        kv_bytes=41 * BLOCK_BYTES, dev_mode=True,
    )  # fmt: skip
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as events:
        events.subscribe(b"")
        events.connect(engine.address.kv_events or "")
        async with serving(engine, install.venv, "golden") as session:
            (folder / "vllm-0.32.txt").write_text(await session.metrics())
            recorder = Recorder(session, events)
            # The warm-up's own blocks come first.
            warm_up = await recorder.frames()
            await conversation(recorder)
            replay = await replayed(engine.address.kv_replay or "", 3)
            (folder / "vllm-0.32-busy.txt").write_text(await busy_metrics(session))
    recorded = {
        "engine": "vLLM 0.32.0 on CPU, SmolLM2-135M-Instruct, frames in base64",
        "block_size": engine.block_size,
        "warm_up": {"frames": warm_up},
        "steps": recorder.steps,
        "replay_from_3": replay,
    }
    (folder / "vllm-0.32-kv-events.json").write_text(_pretty(recorded))


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _text(frame: bytes) -> str:
    return base64.b64encode(frame).decode()


def _pretty(recorded: dict[str, Any]) -> str:
    """One line per step, so that a change of the recording shows as a change of its steps."""
    lists = {name: value for name, value in recorded.items() if isinstance(value, list)}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in recorded.items() if name not in lists]
    for name, rows in lists.items():
        lines.append(f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN))
