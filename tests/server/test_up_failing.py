"""What `picker up` says of endpoints that fail."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from rich.console import Console
from test_up_view import ENGINE

from picker.routing.failing import FIRST_S, ROW, Failing
from picker.routing.outcome import Fault
from picker.server.processes import Children
from picker.server.up.ports import HOST, free_run
from picker.server.up.stack import Stack
from picker.server.up.view import progress, screen

FINE, BAD = 0, 1


def shown(*failing: Mapping[str, Any] | None, width: int = 80) -> str:
    """The screen with one endpoint for each of these, on ports 8000, 8001, ..."""
    rows = [{**ENGINE, "address": f"{HOST}:{8000 + i}", "failing": known} for i, known in enumerate(failing)]
    console = Console(width=width)
    with console.capture() as capture:
        console.print(screen("multiplicative", rows, None, progress()))
    return capture.get()


@pytest.fixture
def failing() -> Failing:
    return Failing()


def told(failing: Failing, now: float) -> str:
    return shown(failing.told(FINE, now), failing.told(BAD, now))


def test_an_endpoint_that_takes_no_connection_is_said_to_get_no_requests_and_for_how_long(failing: Failing) -> None:
    failing.failed(BAD, Fault.UNREACHED, -0.1, 0.0)
    assert "port 8001 could not be reached: gets no requests for 1 s, then one tries it\n" in told(failing, 0.25)
    assert "port 8000" not in told(failing, 0.25)


def test_so_is_one_that_answers_5xx_several_times_in_a_row_but_no_suspect(failing: Failing) -> None:
    for _ in range(ROW - 1):
        failing.failed(BAD, Fault.BROKEN, 0.0, 0.0)
    assert "port 8001" not in told(failing, 0.0)
    failing.failed(BAD, Fault.BROKEN, 0.0, 0.0)
    assert "port 8001 answers with errors or breaks off: gets no requests for 1 s" in told(failing, 0.0)


def test_trials_are_said_until_one_goes_well(failing: Failing) -> None:
    failing.failed(BAD, Fault.UNREACHED, -0.1, 0.0)
    assert "port 8001 could not be reached: the next request there tries it\n" in told(failing, FIRST_S)
    failing.picked(BAD, 7, FIRST_S)
    assert "port 8001 could not be reached: gets no requests while one tries it\n" in told(failing, FIRST_S)
    failing.succeeded(BAD, FIRST_S)
    assert "port 8001" not in told(failing, FIRST_S)


def test_where_more_than_half_fail_it_is_said_that_some_get_requests_all_the_same(failing: Failing) -> None:
    failing.failed(BAD, Fault.UNREACHED, -0.1, 0.0)
    bad = failing.told(BAD, 0.0)
    assert "some of them all the same" not in shown(bad, None)
    assert "more than half fail: requests go to some of them all the same\n" in shown(bad, bad, None)


async def test_of_several_workers_each_of_which_notices_by_itself_the_worst_is_shown(
    failing: Failing, tmp_path: Path
) -> None:
    failing.failed(BAD, Fault.BROKEN, 0.0, 0.0)
    suspect = failing.told(BAD, 0.0)
    failing.failed(BAD, Fault.UNREACHED, -0.1, 0.0)
    left_out = failing.told(BAD, 0.0)
    async with AsyncExitStack() as cleanup, aiohttp.ClientSession() as session:
        first = free_run(3)
        for worker, known in enumerate((suspect, left_out, None)):
            await _worker(cleanup, first + worker, known)
        stack = Stack(Children(tmp_path), tmp_path, workers=3, admin=f"http://{HOST}:{first}")
        (row,) = await stack.endpoints(session)
    assert (row["failing"], row["picks"]) == (left_out, 3 * ENGINE["picks"])


async def _worker(cleanup: AsyncExitStack, port: int, failing: Mapping[str, Any] | None) -> None:
    async def pool(_: web.Request) -> web.Response:
        counts = {"ended": 0, "in_flight": 0.0}
        return web.json_response({"endpoints": [{**ENGINE, **counts, "failing": failing}]})

    app = web.Application()
    app.router.add_get("/pool", pool)
    runner = web.AppRunner(app)
    await runner.setup()
    cleanup.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, HOST, port).start()
