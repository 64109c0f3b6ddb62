"""The ids that picker computes from a body are those that the engine computes."""

import random
from typing import Any

import msgspec
import pytest
from session import Session
from words import sentence

from picker.requests.exact import ExactModel
from picker.requests.request import Api
from picker.server.vllm_install import VllmInstall

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


def said(*turns: str) -> list[dict[str, Any]]:
    """A conversation of these turns, user first."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


SYSTEM = {"role": "system", "content": "Answer in one line."}
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": " two\n"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
TOOL = {"type": "function", "function": {"name": "clock", "description": "Tells time.", "parameters": {}}}

CHATS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": said("Hello")},
    "a system prompt": {"messages": [SYSTEM, *said("Hello")]},
    "many turns": {"messages": [SYSTEM, *said(*(sentence(12, seed) for seed in range(9)))]},
    "text in parts": {"messages": [{"role": "user", "content": PARTS}]},
    "empty content": {"messages": said("", "", "x")},
    "blanks at the edges": {"messages": said("  \n x \t ", " y ", "\n\n")},
    "special tokens in the text": {"messages": said("<|im_start|>user\nhi<|im_end|>\n<|endoftext|>", "ok", "<|im_end")},
    "other scripts": {"messages": said("Grüße, 世界! \U0001f30d नमस्ते مرحبا", "e\u0301 ﬁ Å", "\u200b\u00a0x")},
    "digits and code": {"messages": said("def f(x):\n\treturn x**2  # 1234567890\r\n", "```\n{}\n```", "3.14")},
    "a developer": {"messages": [{"role": "developer", "content": "Be brief."}, *said("Hello")]},
    "a late system message": {"messages": [*said("a", "b"), SYSTEM, *said("c")]},
    "a named user": {"messages": [{"role": "user", "name": "ann", "content": "Hello"}]},
    "a tool's answer": {
        "messages": [
            *said("What time is it?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        ]
    },
    "tools on offer": {"messages": said("What time is it?"), "tools": [TOOL]},
    "no generation prompt": {"messages": said("a", "b"), "add_generation_prompt": False},
    "a message to continue": {
        "messages": said("Count.", "One, two,"),
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "special tokens added": {"messages": said("Hello"), "add_special_tokens": True},
    "a long prompt": {"messages": said(sentence(900))},
}


@pytest.fixture(scope="module")
def model(install: VllmInstall) -> ExactModel:
    return ExactModel(install.model("smollm2"))


async def engine_ids(engine: Session, body: dict[str, Any]) -> list[int]:
    tokens: list[int] = (await engine.post("/tokenize", {"model": engine.engine.served_name, **body}))["tokens"]
    return tokens


@pytest.mark.parametrize("case", CHATS)
async def test_chat(engine: Session, model: ExactModel, case: str) -> None:
    ours = model.prompt(Api.CHAT, msgspec.json.encode(CHATS[case]))
    assert ours.complete
    assert ours.ids.tolist() == await engine_ids(engine, CHATS[case])


async def test_a_chat_answer_names_the_same_prompt(engine: Session, model: ExactModel) -> None:
    body = {"messages": [SYSTEM, *said("Hello", "Hi.", "How are you?")]}
    answer = await engine.ask("/v1/chat/completions", {**body, "max_tokens": 1})
    assert tuple(model.prompt(Api.CHAT, msgspec.json.encode(body)).ids.tolist()) == answer.prompt


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("prompt", ["Once upon a time", " x", "<|im_start|>a<|im_end|>\n", "é\n\n  世"])
async def test_text_prompts(engine: Session, model: ExactModel, prompt: str, special: bool) -> None:
    body = {"prompt": prompt, "add_special_tokens": special}
    ours = model.prompt(Api.COMPLETIONS, msgspec.json.encode(body))
    assert ours.ids.tolist() == await engine_ids(engine, body)


async def test_random_text_cut_at_random_places(engine: Session, model: ExactModel) -> None:
    """Pieces are cached by their text: a prompt put together from pieces seen before must not differ."""
    draw = random.Random(7)
    alphabet = [*"ab \n\t.,'é世\U0001f600", "<|im_end|>", "<|im_start|>", "user", "1"]
    for _ in range(40):
        body = {"messages": said(*("".join(draw.choices(alphabet, k=draw.randrange(30))) for _ in range(3)))}
        assert model.prompt(Api.CHAT, msgspec.json.encode(body)).ids.tolist() == await engine_ids(engine, body)
