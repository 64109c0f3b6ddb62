"""Engines that die, hang or fall silent: the damage stays with the requests that were on them."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio
from gateway import GPU, Gateway, Reply, chat, gateway, new_words, scribe, until

from picker.server.envoy import ResponsePath
from picker.server.up.stack import EngineAddress, SimulatedEngines

FRESH_S = 4.0
"""Idle engines are scraped every 1.5 s; a failed one rests for up to 5 s."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def four_engines() -> AsyncIterator[Gateway]:
    async with gateway(engines=4, speedup=1.0) as there:
        yield there


@pytest_asyncio.fixture(loop_scope="module")
async def running(four_engines: Gateway) -> AsyncIterator[Gateway]:
    """Four engines, with nothing on them before or after."""
    await four_engines.at_rest()
    yield four_engines
    await four_engines.at_rest()


async def ages(running: Gateway) -> dict[str, float | None]:
    """Seconds since each endpoint's last good scrape, as the newest pick saw it."""
    (decision,) = await running.get(f"{running.stack.admin}/decisions?count=1")
    return {row["address"]: row["age_s"] for row in decision["endpoints"]}


async def envoy_retries(running: Gateway) -> int:
    """Requests that Envoy sent to the next of a list."""
    async with running.session.get(f"{running.stack.envoy_admin}/stats?filter=cluster.pool.upstream_rq_retry$") as page:
        return int((await page.text()).rpartition(":")[2])


def fresh(age: float | None) -> bool:
    return age is not None and age < FRESH_S


@pytest.mark.parametrize("path", ["access-log", "echo"])
async def test_a_killed_engine_breaks_its_own_answers_only_and_is_used_again_when_it_is_back(
    path: ResponsePath,
) -> None:
    async with gateway(path, engines=3, speedup=1.0) as running:
        replies, tasks = await running.begin_many(9, max_tokens=500)
        dead = (await running.decisions(replies[0].request_id))[0]["chosen"]
        running.engine(dead).signal(signal.SIGKILL)
        await asyncio.gather(*tasks)
        chosen = [(await running.decisions(reply.request_id))[0]["chosen"] for reply in replies]
        assert [reply.ok for reply in replies] == [address != dead for address in chosen]
        await running.at_rest()
        outcome = (await running.decided(replies[0].request_id))["outcome"]
        assert (outcome["status"], outcome["complete"]) == (200, False)

        retried = await envoy_retries(running)
        afterwards = []
        for _ in range(30):
            reply = await running.ask(chat(new_words()))
            assert reply.ok
            afterwards.append(await running.decided(reply.request_id))
        # Envoy goes down the list of the few picks that try it, each at least twice as long after the one before.
        assert dead not in {each["outcome"]["served"] for each in afterwards}
        assert [dead] in [each["left_out"] for each in afterwards]
        tried = [each["at"] for each in afterwards if each["chosen"] == dead]
        gaps = [later - earlier for earlier, later in pairwise(tried)]
        assert all(gap >= 2**i for i, gap in enumerate(gaps)), gaps
        assert await envoy_retries(running) - retried == len(tried)
        assert (await running.pool())[dead]["failing"]["because"] in ("unreached", "broken")
        await running.at_rest()

        place = next(engine for engine in running.stack.engines if engine.address == dead)
        await running.start_engine(SimulatedEngines([GPU]), place)

        async def served_again() -> bool:
            reply = await running.ask(chat(new_words()))
            return bool((await running.decided(reply.request_id))["outcome"]["served"] == dead)

        await until(served_again)
        assert (await running.pool())[dead]["failing"] is None


@pytest.mark.parametrize("path", ["access-log", "echo"])
async def test_an_engine_that_answers_500_to_everything_fails_a_few_requests_only(path: ResponsePath) -> None:
    at_once, began = asyncio.Semaphore(8), time.monotonic()
    async with scribe() as bad, gateway(path, engines=2, more=[EngineAddress(bad.address)]) as running:
        bad.status = 500

        async def one() -> int:
            async with at_once:
                return (await running.ask(chat(new_words()))).status

        statuses = Counter(await asyncio.gather(*(one() for _ in range(300))))
        # Three in a row, those on their way until that is told, and trials after 1, 2, 4 s and so on to 30.
        failed = 3 + 2 * 8 + 6 + (time.monotonic() - began) / 30
        assert set(statuses) == {200, 500}
        assert 3 <= statuses[500] <= failed
        assert len(bad.heard) == statuses[500]
        await running.at_rest()
        assert (await running.pool())[bad.address]["failing"]["because"] == "broken"
        assert await running.metric("picker_endpoint_failures_total", fault="broken") == statuses[500]
        bad.status = 200

        async def serves_again() -> bool:
            await running.ask(chat(new_words()))
            return (await running.pool())[bad.address]["failing"] is None

        await until(serves_again)

        async def both_were_said() -> bool:
            said = running.picker.log.read_text()
            return "an endpoint fails, picks stay away" in said and "an endpoint serves again" in said

        await until(both_were_said)


async def test_a_request_that_broke_its_engine_is_sent_to_no_other() -> None:
    async with (
        scribe(breaks=True) as one,
        scribe(breaks=True) as other,
        gateway(engines=0, more=[EngineAddress(one.address), EngineAddress(other.address)]) as running,
    ):
        reply = await running.ask(chat(new_words()))
        assert reply.status == 503
        assert len(one.heard) + len(other.heard) == 1
        assert (await running.decided(reply.request_id))["outcome"]["status"] == 503
        await running.at_rest()


async def test_an_engine_whose_metrics_never_answer_delays_nobody() -> None:
    async with scribe(mute=True) as mute, gateway(engines=2, more=[EngineAddress(mute.address)]) as running:
        for _ in range(20):
            assert (await running.ask(chat(new_words()))).ok

        async def tried() -> bool:
            return await running.metric("llm_d_epp_datalayer_poll_errors_total", endpoint=mute.address) > 0

        async def others_are_fresh() -> bool:
            assert (await running.ask(chat(new_words()))).ok
            seen = await ages(running)
            assert seen.pop(mute.address) is None
            return all(map(fresh, seen.values()))

        await until(tried)
        await until(others_are_fresh)
        assert mute.heard


@pytest.mark.asyncio(loop_scope="module")
async def test_a_burst_of_500_requests_in_one_second_is_spread_within_a_factor_of_two(running: Gateway) -> None:
    before = {address: row["picks"] for address, row in (await running.pool()).items()}

    async def later(i: int) -> Reply:
        await asyncio.sleep(i / 500)
        return await running.ask(chat(new_words(50), max_tokens=32))

    replies = await asyncio.gather(*(later(i) for i in range(500)))
    assert all(reply.ok for reply in replies)
    picks = [row["picks"] - before[address] for address, row in (await running.pool()).items()]
    assert sum(picks) == 500
    assert max(picks) <= 2 * min(picks)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_engine_that_leaves_the_pool_finishes_its_answers_and_gets_no_more(running: Gateway) -> None:
    replies, tasks = await running.begin_many(12, max_tokens=400)
    leaving, *staying = (engine.address for engine in running.stack.engines)
    file = running.stack.folder / "endpoints.json"
    listed = file.read_text()
    left = [each for each in json.loads(listed)["endpoints"] if each["address"] != leaving]
    file.write_text(json.dumps({"endpoints": left}))

    async def are_there(*addresses: str) -> bool:
        return set(await running.pool()) == {*addresses}

    await until(lambda: are_there(*staying))
    for _ in range(6):
        _, task, decision = await running.picked(chat(new_words()))
        assert decision["chosen"] in staying
        tasks.append(task)
    assert all(reply.ok for reply in await asyncio.gather(*tasks))
    served = {(await running.decided(reply.request_id))["outcome"]["served"] for reply in replies}
    assert served == {leaving, *staying}
    file.write_text(listed)
    await until(lambda: are_there(leaving, *staying))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_frozen_engine_holds_up_its_own_requests_only(running: Gateway) -> None:
    frozen = running.stack.engines[0].address
    assert all(reply.ok for reply in await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(8))))
    await running.at_rest()
    process = running.engine(frozen)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        asked = [await running.picked(chat(new_words())) for _ in range(40)]
        on_others = [task for _, task, decision in asked if decision["chosen"] != frozen]
        assert all(reply.ok for reply in await asyncio.gather(*on_others))
        # What waits there weighs: the frozen engine gets less than its share.
        assert 0 < 40 - len(on_others) < 10

        async def scrapes_failed() -> bool:
            return await running.metric("llm_d_epp_datalayer_poll_errors_total", endpoint=frozen) > 0

        async def it_alone_is_stale() -> bool:
            asked.append(await running.picked(chat(new_words())))
            seen = await ages(running)
            return [address for address, age in seen.items() if not fresh(age)] == [frozen]

        await until(scrapes_failed)
        await until(it_alone_is_stale)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert all(reply.ok for reply in await asyncio.gather(*(task for _, task, _ in asked)))
