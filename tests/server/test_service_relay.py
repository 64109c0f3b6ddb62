"""Access-log records between workers, over the real sockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
from msgspec.structs import replace

from picker.exchange.access_log import AccessRecord
from picker.server import relay
from picker.server.relay import Mailbox

RECORD = AccessRecord(7, True, 200, ("no_route_found",), "10.0.0.1:8000", 0.25, 1.5, 30, 16, 5)


class Worker:
    """A mailbox and what came into it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.got: list[AccessRecord] = []
        self.breaks = 0
        self.mailbox = Mailbox(folder, number, 2, self.got.append, self._broken)

    def _broken(self) -> None:
        self.breaks += 1


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Worker, Worker]]:
    workers = Worker(tmp_path, 0), Worker(tmp_path, 1)
    for worker in workers:
        await worker.mailbox.open()
    yield workers
    for worker in workers:
        worker.mailbox.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_record_arrives_with_all_that_matters(pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    assert first.mailbox.send(1, RECORD)
    await until(lambda: second.got)
    assert second.got == [RECORD]
    assert first.got == []


async def test_a_burst_of_records_loses_none(pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    sent = [replace(RECORD, flight=flight) for flight in range(5000)]
    assert all(first.mailbox.send(1, record) for record in sent)
    await until(lambda: len(second.got) == 5000)
    assert [record.flight for record in second.got] == list(range(5000))


async def test_records_for_a_full_peer_are_bounded(tmp_path: Path) -> None:
    mailbox = Worker(tmp_path, 0).mailbox
    taken = [mailbox.send(1, RECORD) for _ in range(relay.MAX_WAITING + 1)]
    assert taken.count(False) == 1
    assert taken[-1] is False


async def test_records_for_a_missing_peer_are_dropped_and_new_ones_reach_the_next(tmp_path: Path) -> None:
    first, second = Worker(tmp_path, 0), Worker(tmp_path, 1)
    assert first.mailbox.send(1, RECORD)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await second.mailbox.open()
    assert first.mailbox.send(1, replace(RECORD, flight=9))
    await until(lambda: second.got)
    assert [record.flight for record in second.got] == [9]
    second.mailbox.close()


async def test_a_worker_hears_that_a_peers_log_lives_and_that_it_broke(pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    assert not second.mailbox.peers_live()
    first.mailbox.say_alive()
    await until(second.mailbox.peers_live)
    first.mailbox.say_broken()
    await until(lambda: second.breaks)
    assert first.breaks == 0


async def test_what_is_no_record_is_ignored(pair: tuple[Worker, Worker]) -> None:
    first, second = pair
    second.mailbox.datagram_received(b"\xc1garbage", None)
    first.mailbox.send(1, RECORD)
    await until(lambda: second.got)


async def test_a_worker_that_is_started_again_takes_its_old_place(tmp_path: Path) -> None:
    first, old, new = Worker(tmp_path, 0), Worker(tmp_path, 1), Worker(tmp_path, 1)
    await old.mailbox.open()
    await new.mailbox.open()
    first.mailbox.send(1, RECORD)
    await until(lambda: new.got)
    assert old.got == []
    old.mailbox.close()
    new.mailbox.close()
