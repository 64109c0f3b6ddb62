"""Many requests at once, prefixes that return, clients that leave: every answer is whole."""

import asyncio
from collections import Counter

import pytest
from client import CHAT, Client, new_words


async def test_a_burst_is_answered_completely(gateway: Client) -> None:
    bodies = [gateway.streamed() if number % 2 else gateway.chat() for number in range(64)]
    answers = await asyncio.gather(*(gateway.post(CHAT, body) for body in bodies))
    assert Counter(answer.status for answer in answers) == {200: 64}
    assert all(1 <= answer.usage["completion_tokens"] <= 8 for answer in answers)


@pytest.mark.needs("cached-tokens")
async def test_a_prompt_that_returns_finds_its_prefix(gateway: Client) -> None:
    """Mostly: a picker may well prefer a fast engine without a short prefix to a slow one with it."""
    body = gateway.chat(new_words(600))
    usages = [(await gateway.post(CHAT, body)).usage for _ in range(7)]
    shares = [usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"] for usage in usages]
    assert shares[0] < 0.5
    assert sum(share > 0.5 for share in shares[1:]) >= 3


@pytest.mark.needs("cached-tokens")
async def test_conversations_side_by_side_each_find_their_own(gateway: Client) -> None:
    prompts = [new_words(600) for _ in range(8)]
    for words in prompts:
        await gateway.post(CHAT, gateway.chat(words))
    answers = await asyncio.gather(*(gateway.post(CHAT, gateway.chat(words)) for words in prompts))
    cached = sum(answer.usage["prompt_tokens_details"]["cached_tokens"] for answer in answers)
    assert cached > sum(answer.usage["prompt_tokens"] for answer in answers) / 2


async def test_clients_that_leave_cost_the_others_nothing(gateway: Client) -> None:
    async def leave_early() -> None:
        async with gateway.session.post(CHAT, json=gateway.streamed(max_tokens=256)) as response:
            await response.content.readany()

    staying = [gateway.post(CHAT, gateway.streamed()) for _ in range(8)]
    answers, _ = await asyncio.gather(asyncio.gather(*staying), asyncio.gather(*(leave_early() for _ in range(8))))
    assert all(1 <= answer.usage["completion_tokens"] <= 8 for answer in answers)
