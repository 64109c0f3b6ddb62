"""The picker dies, restarts or drains while answers run; Envoy restarts. Running answers are sacred."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gateway import Gateway, Reply, chat, gateway, new_words, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with gateway(*request.param, engines=1, speedup=1.0) as there:
        yield there


@pytest_asyncio.fixture(loop_scope="module")
async def running(way: Gateway) -> AsyncIterator[Gateway]:
    """It has a picker, and nothing is under way before or after."""
    await way.start_picker()
    await way.at_rest()
    yield way
    if way.picker.running:
        await way.at_rest()


def through(*ways: str) -> pytest.MarkDecorator:
    """A gateway for each of these response paths and request modes."""
    return pytest.mark.parametrize("way", [tuple(way.split()) for way in ways], indirect=True, ids="-".join)


async def load(running: Gateway, until_set: asyncio.Event) -> list[Reply]:
    """Short requests, one after another, until told to stop."""
    replies = []
    while not until_set.is_set():
        replies.append(await running.ask(chat(new_words(), max_tokens=2)))
        await asyncio.sleep(0.02)
    return replies


async def killed(running: Gateway) -> None:
    running.picker.signal(signal.SIGKILL)
    await running.picker.process.wait()


async def ended_well(running: Gateway) -> None:
    assert await asyncio.wait_for(running.picker.process.wait(), 30) == 0


@through("access-log full-duplex", "access-log buffered", "detach full-duplex")
async def test_a_picker_that_is_told_to_stop_breaks_no_running_answer(running: Gateway) -> None:
    # Envoy connects its access log with the first record; from then on answers can be detached.
    await running.ask(chat())
    await running.at_rest()
    _, (endless,) = await running.begin_many(1, max_tokens=10_000)
    replies, tasks = await running.begin_many(12, max_tokens=400)
    running.picker.signal(signal.SIGTERM)
    await ended_well(running)
    assert not endless.done()
    await running.start_picker()
    await asyncio.gather(*tasks)
    assert all(reply.ok for reply in replies)
    assert {reply.usage()["completion_tokens"] for reply in replies} == {400}
    assert not endless.done()
    endless.cancel()


@through("access-log full-duplex")
async def test_a_killed_picker_breaks_no_running_answer_and_fails_requests_only_while_it_is_away(
    running: Gateway,
) -> None:
    stop = asyncio.Event()
    others = [asyncio.create_task(load(running, stop)) for _ in range(4)]
    replies, tasks = await running.begin_many(12, max_tokens=400)
    went = time.monotonic()
    await killed(running)
    await running.start_picker()
    came = time.monotonic()
    assert all(reply.ok for reply in await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(10))))
    await asyncio.gather(*tasks)
    stop.set()
    asked = [reply for each in await asyncio.gather(*others) for reply in each]
    assert all(reply.ok for reply in replies)
    failed = [reply for reply in asked if not reply.ok]
    assert all(reply.ended > went and reply.began < came for reply in failed)


@through("echo full-duplex", "access-log buffered")
async def test_a_killed_picker_cuts_the_answers_whose_stream_it_still_holds(running: Gateway) -> None:
    replies, tasks = await running.begin_many(4, max_tokens=10_000)
    await killed(running)
    await asyncio.gather(*tasks)
    assert not any(reply.whole for reply in replies)
    await running.start_picker()
    assert (await running.ask(chat(new_words(), stream=True))).ok


@through("access-log full-duplex")
async def test_words_about_the_flights_of_an_earlier_process_release_nothing(running: Gateway) -> None:
    _, (old,) = await running.begin_many(1, max_tokens=10_000)
    await killed(running)
    await running.start_picker()
    # As many picks as before: with flights counted from 1 the old end would be taken for this one's.
    (new,), (answer,) = await running.begin_many(1, max_tokens=500)
    old.cancel()

    async def told() -> bool:
        return await running.metric("picker_access_log_records_total", result="late") > 0

    await until(told)
    assert (await answer).ok
    outcome = (await running.decided(new.request_id))["outcome"]
    assert (outcome["completion_tokens"], outcome["complete"]) == (500, True)


@through("echo full-duplex")
async def test_an_echoing_picker_finishes_its_answers_before_it_goes(running: Gateway) -> None:
    replies, tasks = await running.begin_many(8, max_tokens=200)
    running.picker.signal(signal.SIGTERM)
    await asyncio.gather(*tasks)
    assert all(reply.ok for reply in replies)
    await ended_well(running)


@through("access-log full-duplex", "echo full-duplex")
async def test_an_envoy_that_dies_and_comes_back_leaves_nothing_in_the_ledger(running: Gateway) -> None:
    replies, tasks = await running.begin_many(8, max_tokens=10_000)
    running.envoy.signal(signal.SIGKILL)
    await asyncio.gather(*tasks)
    assert not any(reply.ok for reply in replies)
    # Its access log is connected again before anybody could wonder where the old one is.
    assert running.stack.envoy_spec is not None
    await running.stack.launch_envoy(running.stack.envoy_spec)
    afterwards = await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(10)))
    assert all(reply.ok for reply in afterwards)
    await running.at_rest()
    lost = [(await running.decided(reply.request_id))["outcome"]["complete"] for reply in replies]
    assert not any(lost)


async def test_an_echoing_picker_stops_waiting_when_the_drain_time_is_over() -> None:
    async with gateway("echo", engines=1, speedup=1.0, argv=["--drain-timeout", "0.5"]) as running:
        replies, tasks = await running.begin_many(1, max_tokens=10_000)
        running.picker.signal(signal.SIGTERM)
        await ended_well(running)
        await asyncio.gather(*tasks)
        assert not replies[0].whole
