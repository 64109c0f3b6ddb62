"""The prefix hit that picker predicts is the hit that the engine then reports.

Exact mode must be right to the token, on conversations that branch, repeat and share system prompts, with salted caches
and token-id prompts, in a cache too small for them. Text mode only estimates: its error is printed.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from conversations import CHAT, Conversations
from session import Answer, Session

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.kv_feed import KvFeed
from picker.pool.view import Endpoint, Pool
from picker.requests.blocks import chain_tokens, root
from picker.requests.reader import Reader, ReaderSettings, text_block_tokens
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.server.vllm_install import VllmInstall

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

REQUESTS = 100
SLOT = 0
SLOTS = np.array([SLOT], dtype=np.intp)


@dataclass(slots=True)
class Watched:
    """An engine and the index that its KV events fill."""

    session: Session
    index: PrefixIndex
    marks: Iterator[int]

    @property
    def block(self) -> int:
        return self.session.engine.block_size

    def held(self, request: Request) -> int:
        """Tokens of the request's prompt that the engine need not compute: it always computes the last one."""
        blocks = int(self.index.matched(request.chain, SLOTS)[0])
        return min(blocks, (int(request.prompt_tokens) - 1) // self.block) * self.block

    async def settled(self) -> None:
        """Return when all events of the answers so far are in the index: those of a fresh block come behind them."""
        mark = [100 + next(self.marks) % 40_000] * self.block
        await self.session.ask("/v1/completions", {"prompt": [*mark, 1], "max_tokens": 1})
        chain = chain_tokens(mark, self.block, root())
        async with asyncio.timeout(20):
            while not self.index.matched(chain, SLOTS)[0]:
                await asyncio.sleep(0.002)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(engine: Session) -> AsyncIterator[Watched]:
    address = engine.engine.address
    index, pool = PrefixIndex(), Pool()
    feed = KvFeed(index)
    feed.follow(pool.replace([Endpoint(address.address, kv_events=address.kv_events, kv_replay=address.kv_replay)]))
    try:
        yield Watched(engine, index, itertools.count())
    finally:
        await feed.close()


def reader_for(engine: Session, tokenizers: dict[str, Any]) -> Reader:
    return Reader(ReaderSettings(block_tokens=engine.engine.block_size, tokenizers=tokenizers))


def read(reader: Reader, path: str, body: dict[str, Any], model: str) -> Request:
    return reader.finish(reader.parse(path, {}, msgspec.json.encode({"model": model, **body})))


async def test_exact_mode_predicts_every_hit_of_a_hundred_requests(watched: Watched, install: VllmInstall) -> None:
    session, model = watched.session, watched.session.engine.served_name
    exact, text = reader_for(session, {model: install.model("smollm2")}), reader_for(session, {})
    guess = TextMode(session)
    stream = Conversations(seed=1)
    wrong, answers, forgotten = [], [], 0
    ever: set[int] = set()
    for number in range(REQUESTS):
        path, body = stream.next()
        await watched.settled()
        request = read(exact, path, body, model)
        predicted = watched.held(request)
        answer = await session.ask(path, body)
        if (predicted, request.prompt_tokens) != (answer.cached, len(answer.prompt)) or not request.exact:
            wrong.append((number, path, predicted, answer.cached, request.prompt_tokens, len(answer.prompt)))
        guess.compare(text, read(text, path, body, model), answer)
        stream.answered(path, answer)
        answers.append((path, answer))
        forgotten += sum(key in ever for key in request.chain.tolist()) * watched.block > answer.cached + watched.block
        ever.update(request.chain.tolist())
    guess.print_error()
    hits = [answer.cached for _, answer in answers]
    assert not wrong
    # The stream was worth predicting: most are chats, many hit, hits differ, and evictions cost some of them.
    assert sum(path == CHAT for path, _ in answers) > REQUESTS / 2
    assert REQUESTS / 4 < sum(hit > 0 for hit in hits) < REQUESTS
    assert len(set(hits)) > 10
    assert forgotten > 0


class TextMode:
    """What picker would have guessed with no tokenizer and no KV events, learning from the answers as it goes."""

    def __init__(self, session: Session) -> None:
        picks = ApproximateIndex()
        self._hits = PrefixHits(PrefixIndex(), picks, ApproximateIndex())
        picks.set_capacity(SLOT, int(session.kv_tokens / text_block_tokens(session.engine.block_size)))
        self._pairs: list[tuple[float, Answer]] = []

    def compare(self, reader: Reader, request: Request, answer: Answer) -> None:
        now = time.monotonic()
        predicted = float(self._hits.tokens(request, SLOTS, now)[0])
        self._hits.placed(request, SLOT, now)
        self._hits.answered(request, predicted, answer.cached, len(answer.prompt))
        reader.observe(request, len(answer.prompt))
        if not request.exact:
            self._pairs.append((predicted, answer))

    def print_error(self) -> None:
        errors = [predicted - answer.cached for predicted, answer in self._pairs]
        prompt = statistics.mean(len(answer.prompt) for _, answer in self._pairs)
        print(
            f"\ntext mode, {len(errors)} requests, mean prompt {prompt:.0f} tokens: error of the predicted hit "
            f"mean {statistics.mean(errors):+.0f}, mean absolute {statistics.mean(map(abs, errors)):.0f}, "
            f"largest {max(errors, key=abs):+.0f} tokens"
        )
