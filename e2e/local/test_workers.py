"""Two picker processes behind one Envoy: own ledgers, one index of prompts, one access log, and one that dies."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import aiohttp
import psutil
import pytest
import pytest_asyncio
from gateway import COLLECTOR, PATIENCE_S, Gateway, chat, child_with, gateway, new_words, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Gateway]:
    async with gateway("access-log", speedup=4.0, workers=2, expected="ended, starting it again") as there:
        yield there


@pytest_asyncio.fixture(loop_scope="module")
async def running(stack: Gateway) -> AsyncIterator[Gateway]:
    """It has two workers, and nothing is under way before or after."""
    await stack.start_picker()
    await stack.at_rest()
    yield stack
    if stack.picker.running:
        await stack.at_rest()


async def ask_many(running: Gateway, count: int) -> None:
    replies = await asyncio.gather(*(running.ask(chat(new_words(), max_tokens=20)) for _ in range(count)))
    assert [reply.status for reply in replies if not reply.ok] == []


async def picks(running: Gateway) -> list[float]:
    """Picks of each worker."""
    return [await running.metric("llm_d_epp_request_total", worker=worker) for worker in (0, 1)]


def worker_process(running: Gateway, worker: int) -> psutil.Process | None:
    """The process of a worker, a child of the supervisor."""
    return child_with(running, "--worker", str(worker))


async def asked(running: Gateway, words: str) -> tuple[int, float]:
    """Send a prompt; which worker picked, and how many tokens it thought cached where it sent it."""
    reply = await running.ask(chat(words))
    assert reply.ok
    host, _, port = running.stack.admin.rpartition(":")
    for worker in (0, 1):
        with contextlib.suppress(aiohttp.ClientError):  # one may be dead
            found = await running.get(f"{host}:{int(port) + worker}/decisions/{reply.request_id}")
            if isinstance(found, list):
                row = next(row for row in found[0]["endpoints"] if row["address"] == found[0]["chosen"])
                return worker, found[0]["prompt_tokens"] - row["new_tokens"]
    raise AssertionError(f"nobody picked for {reply.request_id}")


async def asked_of(running: Gateway, worker: int, words: str) -> float:
    """Send a prompt until this worker picks; what it thought cached then."""
    while True:
        who, cached = await asked(running, words)
        if who == worker:
            return cached


async def known_to_all(running: Gateway, worker: int) -> None:
    """Whatever this worker placed before is known: the other one knows a prompt that it placed later."""

    async def crossed() -> bool:
        words = new_words(1000)
        who, cached = await asked(running, words)
        assert cached == 0
        return who == worker and await asked_of(running, 1 - worker, words) > 0

    await until(crossed)


async def test_a_prompt_that_one_worker_placed_is_a_hit_for_the_other(running: Gateway) -> None:
    for worker in (0, 1):
        await known_to_all(running, worker)
    assert await running.metric("picker_placements_lost_total", worker=COLLECTOR) == 0


async def test_where_prompts_were_placed_is_known_after_the_collector_died(running: Gateway) -> None:
    words = new_words(1000)
    who, _ = await asked(running, words)
    await known_to_all(running, who)
    before = child_with(running, "--collector")
    assert before is not None
    before.kill()
    before.wait()
    await known_to_all(running, who)  # by the next collector
    assert await asked_of(running, 1 - who, words) > 0


async def test_where_prompts_were_placed_is_known_after_the_worker_that_placed_them_died(running: Gateway) -> None:
    words = new_words(1000)
    who, _ = await asked(running, words)
    await known_to_all(running, who)
    before = worker_process(running, who)
    assert before is not None
    before.kill()
    before.wait()
    assert await asked_of(running, 1 - who, words) > 0
    assert await asked_of(running, who, words) > 0
    await known_to_all(running, who)


async def test_both_workers_pick_and_hand_each_other_what_the_access_log_tells(running: Gateway) -> None:
    while not min(await picks(running)):  # Envoy finds one that came up late at its next look
        await ask_many(running, 10)
    await ask_many(running, 60)
    await running.at_rest()
    relayed = [
        await running.metric("picker_access_log_records_total", worker=worker, result="relayed") for worker in (0, 1)
    ]
    assert sum(relayed) > 0
    assert sum([row["ended"] for row in (await running.pool()).values()]) == sum(await picks(running))


async def test_while_a_worker_is_dead_and_started_again_no_request_and_no_answer_fails(running: Gateway) -> None:
    replies, tasks = await running.begin_many(10, max_tokens=1200)
    before = worker_process(running, 1)
    assert before is not None
    before.kill()
    before.wait()

    async def another() -> bool:
        found = worker_process(running, 1)
        try:
            return found is not None and found.pid != before.pid and await running.pool() != {}
        except (aiohttp.ClientError, psutil.NoSuchProcess):
            return False

    while not await another():
        await ask_many(running, 4)
    await asyncio.gather(*tasks)
    assert [reply.status for reply in replies if not reply.ok] == []

    async def both_pick() -> bool:
        before = await picks(running)
        await ask_many(running, 10)
        return all(now > then for now, then in zip(await picks(running), before, strict=True))

    await until(both_pick)


async def test_while_the_collector_is_dead_picks_go_on_and_the_next_one_is_heard(running: Gateway) -> None:
    await ask_many(running, 10)
    workers = [worker_process(running, worker) for worker in (0, 1)]
    before = child_with(running, "--collector")
    assert before is not None
    before.kill()
    before.wait()
    await ask_many(running, 20)

    async def heard() -> bool:
        try:
            return await running.metric("picker_scrapes_total", worker=COLLECTOR) > 0
        except aiohttp.ClientError:
            return False

    await until(heard)
    await ask_many(running, 10)
    assert [worker_process(running, worker) for worker in (0, 1)] == workers


async def test_one_signal_ends_them_all(running: Gateway) -> None:
    workers = [worker_process(running, worker) for worker in (0, 1)]
    assert all(workers)
    running.picker.signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.picker.process.wait(), PATIENCE_S) == 0
    assert not any(worker.is_running() for worker in workers if worker is not None)


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(running: Gateway) -> None:
    workers = [worker for worker in (worker_process(running, number) for number in (0, 1)) if worker is not None]
    assert len(workers) == 2
    running.picker.signal(signal.SIGKILL)

    async def gone() -> bool:
        return not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)

    await until(gone)
