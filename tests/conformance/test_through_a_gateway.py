"""The cases over HTTP, against a gateway played by one handler: an honest one passes, a wrong one fails its rules."""

import contextlib
import hashlib
import itertools
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import aiohttp
import pytest
from aiohttp import web

from picker.conformance import echo, through_envoy
from picker.conformance.case import Result, Verdict
from picker.conformance.runner import run
from picker.conformance.through_envoy import THROUGH_ENVOY, Gateway


@pytest.fixture(autouse=True)
def _few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_envoy, "REQUESTS", 30)
    monkeypatch.setattr(through_envoy, "WEIGHTED_REQUESTS", 50)


FIRST = tuple(f"127.0.0.{pod}:{port}" for pod in (11, 12, 13) for port in (3000, 3002, 3004))
SECOND = ("127.0.0.21:3000", "127.0.0.22:3000")


def steered(pool: tuple[str, ...], header: str) -> tuple[str, ...]:
    wanted = header.split(",")
    return tuple(each for each in pool if not header or {each, each.partition(":")[0]} & set(wanted))


@dataclass
class SmallGateway:
    """Gateway, EPP and engines in one. Each field is one thing that may go wrong."""

    steer: Callable[[tuple[str, ...], str], tuple[str, ...]] = steered
    nobody: int = 503
    served: Callable[[str], str] = lambda endpoint: endpoint
    protocol: str = "HTTP/2"
    lost_bytes: int = 0
    opens: bool = True
    closed: int = 503
    first_of_ten: int = 7

    def __post_init__(self) -> None:
        self._numbers, self._draws = itertools.count(), random.Random(0)

    async def handle(self, request: web.Request) -> web.Response:
        door = request.match_info["door"]
        number, body = next(self._numbers), await request.read()
        if door == "closed" or (door.startswith("open") and not self.opens):
            return web.Response(status=self.closed)
        pool = SECOND if door == "weighted" and number % 10 >= self.first_of_ten else FIRST
        found = self.steer(pool, request.headers.get("test-epp-endpoint-selection", ""))
        if not found:
            return web.Response(status=self.nobody)
        if count := int(request.headers.get(echo.EVENTS, 0)):
            return web.Response(body=b"".join(map(echo.event, range(count)))[self.lost_bytes :])
        endpoint = self._draws.choice(found)
        seen = body[self.lost_bytes :]
        protocol = self.protocol if door == "h2c" else "HTTP/1.1"
        told = {"endpoint": endpoint, "protocol": protocol, "bytes": len(seen)}
        headers = {"x-conformance-test-served-endpoint": self.served(endpoint)}
        return web.json_response({**told, "sha256": hashlib.sha256(seen).hexdigest()}, headers=headers)


@contextlib.asynccontextmanager
async def listening(small: SmallGateway) -> AsyncIterator[Gateway]:
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{door}/{path:.*}", small.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as session:
            yield Gateway(
                session,
                FIRST,
                http=f"{url}/http",
                h2c=f"{url}/h2c",
                open_duplex=f"{url}/open_duplex",
                open_buffered=f"{url}/open_buffered",
                closed=f"{url}/closed",
                weighted=f"{url}/weighted",
                dead="127.0.0.19:1",
                second=SECOND,
            )
    finally:
        await runner.cleanup()


async def results(small: SmallGateway) -> list[Result]:
    async with listening(small) as gateway:
        return await run(THROUGH_ENVOY, gateway)


async def test_an_honest_gateway_with_an_honest_epp_passes_every_case() -> None:
    assert [f"{each.name}: {each.seen}" for each in await results(SmallGateway()) if each.verdict != "passed"] == []


STEERING = {"following-1-pods", "following-2-pods", "following-ports", "served-header-is-where-it-arrived"}
WRONG = {
    "steering that is not followed": (
        SmallGateway(steer=lambda pool, header: pool),
        STEERING | {"steered-out-of-the-pool-is-answered-with-503"},
    ),
    "steering that knows no ports": (
        SmallGateway(steer=lambda pool, header: steered(pool, re.sub(":[0-9]+", "", header))),
        {"following-ports", "served-header-is-where-it-arrived"},
    ),
    "a 500 where nothing is left": (
        SmallGateway(nobody=500),
        {"steered-out-of-the-pool-is-answered-with-503"},
    ),
    "a served header that tells another endpoint": (
        SmallGateway(served=lambda endpoint: FIRST[0]),
        {
            "served-header-is-where-it-arrived",
            "app-protocol-http",
            "app-protocol-h2c",
            "dead-endpoint-is-passed-over",
        },
    ),
    "HTTP/1.1 to engines of h2c": (SmallGateway(protocol="HTTP/1.1"), {"app-protocol-h2c"}),
    "lost bytes": (SmallGateway(lost_bytes=1), {"long-body-arrives-whole", "event-stream-arrives-whole"}),
    "failing closed where it should be open": (SmallGateway(opens=False), {"open-with-a-body", "open-without-a-body"}),
    "a 200 without any EPP": (SmallGateway(closed=200), {"closed-without-an-epp"}),
    "weights the other way round": (SmallGateway(first_of_ten=3), {"two-pools-by-weight"}),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_one_fails_the_rules_that_it_breaks_and_no_other(wrong: str) -> None:
    small, broken = WRONG[wrong]
    assert {each.name for each in await results(replace(small)) if each.verdict is Verdict.FAILED} == broken


async def test_a_failure_says_how_many_requests_went_astray() -> None:
    (one, *_) = await results(SmallGateway(steer=lambda pool, header: pool))
    assert one.name == "following-1-pods"
    assert re.match("[12][0-9] of 30 went to 127.0.0.1[23]:300", one.seen)


async def test_without_plugins_and_without_a_second_epp_their_cases_are_not_asked() -> None:
    async with listening(SmallGateway()) as gateway:
        found = await run(THROUGH_ENVOY, replace(gateway, testing=False, weighted=None))
    assert {each.name for each in found if each.verdict is Verdict.NOT_ASKED} == {
        *STEERING,
        "following-3-pods",
        "dead-endpoint-is-passed-over",
        "steered-out-of-the-pool-is-answered-with-503",
        "two-pools-by-weight",
    }
    assert not [each for each in found if each.verdict is Verdict.FAILED]
