"""The picker dies, restarts or drains while answers run; Envoy restarts. Running answers are sacred."""

import asyncio
import signal
import time

import pytest
from gateway import Gateway, Reply, chat, gateway, new_words, until


async def load(running: Gateway, until_set: asyncio.Event) -> list[Reply]:
    """Short requests, one after another, until told to stop."""
    replies = []
    while not until_set.is_set():
        replies.append(await running.ask(chat(new_words(), max_tokens=2)))
        await asyncio.sleep(0.02)
    return replies


@pytest.mark.parametrize(
    ("path", "mode"), [("access-log", "full-duplex"), ("access-log", "buffered"), ("detach", "full-duplex")]
)
async def test_a_picker_that_is_told_to_stop_breaks_no_running_answer(path: str, mode: str) -> None:
    async with gateway(path, mode, engines=1, speedup=1.0) as running:
        await running.ask(chat())
        await running.at_rest()
        replies, tasks = await running.begin_many(12, max_tokens=1000)
        first = running.stack.picker
        first.signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.process.wait(), 10) == 0
        assert not any(task.done() for task in tasks)
        await running.stack.start_picker({"responsePath": path})
        await asyncio.gather(*tasks)
        assert all(reply.ok for reply in replies)
        assert {reply.usage()["completion_tokens"] for reply in replies} == {1000}
        await running.at_rest()


async def test_a_killed_picker_breaks_no_running_answer_and_fails_requests_only_while_it_is_away() -> None:
    async with gateway("access-log", engines=1, speedup=1.0) as running:
        stop = asyncio.Event()
        others = [asyncio.create_task(load(running, stop)) for _ in range(4)]
        replies, tasks = await running.begin_many(12, max_tokens=400)
        went = time.monotonic()
        running.stack.picker.signal(signal.SIGKILL)
        await running.stack.picker.process.wait()
        await running.stack.start_picker()
        came = time.monotonic()
        assert all(reply.ok for reply in await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(10))))
        await asyncio.gather(*tasks)
        stop.set()
        asked = [reply for each in await asyncio.gather(*others) for reply in each]
        assert all(reply.ok for reply in replies)
        failed = [reply for reply in asked if not reply.ok]
        assert all(reply.ended > went and reply.began < came for reply in failed)
        await running.at_rest()


@pytest.mark.parametrize(("path", "mode"), [("echo", "full-duplex"), ("access-log", "buffered")])
async def test_a_killed_picker_cuts_the_answers_whose_stream_it_still_holds(path: str, mode: str) -> None:
    async with gateway(path, mode, engines=1, speedup=1.0) as running:
        replies, tasks = await running.begin_many(4, max_tokens=400)
        running.stack.picker.signal(signal.SIGKILL)
        await asyncio.gather(*tasks)
        assert not any(reply.whole for reply in replies)
        await running.stack.picker.process.wait()
        await running.stack.start_picker({"responsePath": path})
        assert (await running.ask(chat(new_words(), stream=True))).ok
        await running.at_rest()


async def test_words_about_the_flights_of_an_earlier_process_release_nothing() -> None:
    async with gateway("access-log", engines=1, speedup=1.0) as running:
        _, (old,) = await running.begin_many(1, max_tokens=10_000)
        running.stack.picker.signal(signal.SIGKILL)
        await running.stack.picker.process.wait()
        await running.stack.start_picker()
        # As many picks as before: with flights counted from 1 the old end would be taken for this one's.
        (new,), (answer,) = await running.begin_many(1, max_tokens=500)
        old.cancel()

        async def told() -> bool:
            return await running.metric("picker_access_log_records_total", result="late") > 0

        await until(told)
        assert (await answer).ok
        outcome = (await running.decided(new.request_id))["outcome"]
        assert (outcome["completion_tokens"], outcome["complete"]) == (500, True)
        await running.at_rest()


async def test_an_echoing_picker_finishes_its_answers_before_it_goes() -> None:
    async with gateway("echo", engines=1, speedup=1.0) as running:
        replies, tasks = await running.begin_many(8, max_tokens=200)
        running.stack.picker.signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        assert all(reply.ok for reply in replies)
        assert await asyncio.wait_for(running.stack.picker.process.wait(), 10) == 0


async def test_an_echoing_picker_stops_waiting_when_the_drain_time_is_over() -> None:
    async with gateway("echo", engines=1, speedup=1.0, argv=["--drain-timeout", "0.5"]) as running:
        replies, tasks = await running.begin_many(1, max_tokens=2000)
        running.stack.picker.signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.stack.picker.process.wait(), 10) == 0
        await asyncio.gather(*tasks)
        assert not replies[0].whole


@pytest.mark.parametrize("path", ["access-log", "echo"])
async def test_an_envoy_that_dies_and_comes_back_leaves_nothing_in_the_ledger(path: str) -> None:
    async with gateway(path, engines=1, speedup=1.0) as running:
        replies, tasks = await running.begin_many(8, max_tokens=3000)
        running.stack.envoy.signal(signal.SIGKILL)
        await asyncio.gather(*tasks)
        assert not any(reply.ok for reply in replies)
        # Its access log is connected again before anybody could wonder where the old one is.
        await running.stack.launch_envoy(running.stack.envoy_spec)
        afterwards = await asyncio.gather(*(running.ask(chat(new_words())) for _ in range(10)))
        assert all(reply.ok for reply in afterwards)
        await running.at_rest()
        lost = [(await running.decided(reply.request_id))["outcome"]["complete"] for reply in replies]
        assert not any(lost)
