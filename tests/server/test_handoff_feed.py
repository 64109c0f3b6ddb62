"""A picker tells its plan, and a proxy that asks goes by it: over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pool_certificates import Authority
from small_service import ADDRESSES, Clock, make_service

from picker.handoff.feed import PLAN, read
from picker.handoff.members import Members
from picker.policies.registry import REGISTRY
from picker.policies.staged import Staged
from picker.pool.view import Endpoint, Pool
from picker.routing.router import Router
from picker.server import handoff_follow
from picker.server.handoff import HandoffOptions, HandoffServer
from picker.server.handoff_feed import Feed, feed_app
from picker.server.handoff_follow import PlanFeed
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import TOKEN_HEADER
from picker.server.tls import metrics_context

TOKEN = "a-secret-of-the-pool"
KNOWN = {TOKEN_HEADER: TOKEN}


def staged_router(*stages: str) -> Router:
    router = make_service(Clock()).router
    policy = REGISTRY["staged"]({"stages": list(stages)}, np.random.default_rng(0))
    assert isinstance(policy, Staged)
    router.policy = policy
    router.update_pool([Endpoint(address) for address in ADDRESSES])
    policy.meet(dict(zip(router.pool.view.slots.tolist(), router.pool.view.endpoints, strict=True)), lambda _: None)
    think(policy)
    return router


def think(policy: Staged) -> None:
    thought = policy.due(0.0)
    assert thought is not None
    policy.adopt(thought(), 0.0)


@asynccontextmanager
async def telling(
    tmp_path: Path, feeds: dict[str, Feed], port: int | None = None
) -> AsyncIterator[TestClient[Any, Any]]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    async with TestClient(TestServer(feed_app(feeds, tmp_path / "token"), port=port)) as client:
        yield client


async def test_a_proxy_is_told_its_pool_and_the_stages(tmp_path: Path) -> None:
    feed = Feed(staged_router("0-512:1", "512-:2"), epoch=7)
    async with telling(tmp_path, {"chat": feed}) as client, client.get(PLAN, headers=KNOWN) as answer:
        told = read(await answer.read())

    assert (told.epoch, told.version, told.bounds, told.firm) == (7, 1, (512.0,), True)
    assert told.outlook == "as laid down, parted at 512 tokens"
    assert [told.engines[address].stage for address in ADDRESSES] == [0, 1, 1]
    assert told.part(ADDRESSES[0]).following == ADDRESSES[1:]
    assert told.engines[ADDRESSES[0]].url == f"http://{ADDRESSES[0]}"


async def test_who_knows_it_is_told_so_until_it_changes(tmp_path: Path) -> None:
    router = staged_router("0-512:1", "512-:2")
    async with telling(tmp_path, {"chat": Feed(router)}) as client:
        async with client.get(PLAN, headers=KNOWN) as first:
            tag = first.headers["ETag"]
        assert isinstance(router.policy, Staged)
        router.policy.left(99)
        think(router.policy)
        async with client.get(PLAN, headers=KNOWN | {"If-None-Match": tag}) as again:
            assert (again.status, again.headers["ETag"]) == (304, tag)
        router.update_pool([Endpoint(address) for address in ADDRESSES[:2]])
        async with client.get(PLAN, headers=KNOWN | {"If-None-Match": tag}) as changed:
            assert changed.status == 200
            assert read(await changed.read()).engines.keys() == set(ADDRESSES[:2])


async def test_strangers_learn_nothing_and_an_unknown_pool_is_not_said_to_be_empty(tmp_path: Path) -> None:
    empty = make_service(Clock()).router
    empty.pool = Pool()
    feeds = {"chat": Feed(staged_router()), "new": Feed(empty)}
    async with telling(tmp_path, feeds) as client:
        asked = {
            PLAN: {TOKEN_HEADER: "a-secret-of-others"},
            f"{PLAN}?pool=other": KNOWN,
            f"{PLAN}?pool=new": KNOWN,
            f"{PLAN}?pool=chat": KNOWN,
        }
        statuses = []
        for path, headers in asked.items():
            async with client.get(path, headers=headers) as answer:
                statuses.append(answer.status)
        assert statuses == [404, 404, 503, 200]


async def test_a_policy_without_stages_tells_the_pool_alone() -> None:
    page = Feed(make_service(Clock()).router).page()
    assert page is not None
    told = read(page[1])

    assert (told.bounds, told.models, {seat.stage for seat in told.engines.values()}) == ((), (), {None})


# -- the proxy's side -------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EVERY_S", "FIRST_RETRY_S", "LAST_RETRY_S"):
        monkeypatch.setattr(handoff_follow, name, 0.01)


@asynccontextmanager
async def asking(
    url: str, name: str = ADDRESSES[0], tls: PoolTls | None = None
) -> AsyncIterator[tuple[PlanFeed, list[Members]]]:
    heard: list[Members] = []
    feed = PlanFeed(url, name, TOKEN, heard.append, tls=tls)
    task = asyncio.create_task(feed.run())
    try:
        yield feed, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def counted(feed: PlanFeed, outcome: str) -> float:
    samples = [sample for family in feed.collect() for sample in family.samples]
    return sum(s.value for s in samples if s.labels.get("outcome") == outcome and s.name.endswith("_total"))


async def test_a_proxy_follows_changes_and_goes_on_with_the_last_word_while_the_picker_is_away(
    tmp_path: Path, quick: None
) -> None:
    router = staged_router("0-512:1", "512-:2")
    feeds = {"chat": Feed(router, epoch=7)}
    async with telling(tmp_path, feeds) as client:
        port = client.port
        async with asking(f"http://127.0.0.1:{port}") as (feed, heard):
            await until(lambda: bool(heard))
            assert heard[0].membership(ADDRESSES[0]).high == 512
            router.update_pool([Endpoint(address) for address in ADDRESSES[:2]])
            await until(lambda: len(heard) == 2)
            await client.close()
            await until(lambda: counted(feed, "away") > 2)
            assert len(heard) == 2
            async with telling(tmp_path, {"chat": Feed(staged_router("0-256:1", "256-:2"), epoch=8)}, port):
                await until(lambda: len(heard) == 3)
            assert heard[2].membership(ADDRESSES[0]).high == 256


@pytest.mark.parametrize("page", [b"nonsense", b'{"epoch": 1}', b" " * (3 << 20)])
async def test_nonsense_changes_nothing(page: bytes, quick: None) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=page)

    app = web.Application()
    app.router.add_get(PLAN, answer)
    async with TestServer(app) as server, asking(str(server.make_url("/")).rstrip("/")) as (feed, heard):
        await until(lambda: counted(feed, "nonsense") > 2)
        assert not heard


async def test_without_the_pools_token_no_picker_can_be_asked() -> None:
    with pytest.raises(ValueError, match="token"):
        HandoffServer(HandoffOptions("a", "http://127.0.0.1:1", picker="http://127.0.0.1:2"))


@pytest.mark.parametrize("known", [True, False])
async def test_over_tls_a_picker_tells_those_of_the_pools_ca_alone(tmp_path: Path, quick: None, known: bool) -> None:
    authority = Authority()
    folder = authority.certify(tmp_path / "picker")
    (tmp_path / "token").write_text(TOKEN)
    other = (authority if known else Authority()).certify(tmp_path / "proxy")
    app = feed_app({"chat": Feed(staged_router("0-512:1", "512-:2"), peer_port=8443)}, tmp_path / "token")
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=metrics_context(folder, folder / "ca.crt"))
    try:
        url = f"https://127.0.0.1:{server.port}"
        async with asking(url, tls=PoolTls(other)) as (feed, heard):
            await until(lambda: bool(heard) or counted(feed, "away") > 2)
            urls = [f"https://{address.removesuffix(':8000')}:8443" for address in ADDRESSES]
            assert [list(members.engines.values()) for members in heard] == ([urls] if known else [])
    finally:
        await server.close()


def test_json_is_what_is_told() -> None:
    page = Feed(staged_router("0-512:1", "512-:2"), epoch=7).page()
    assert page is not None
    assert json.loads(page[1])["engines"][ADDRESSES[2]] == {"url": f"http://{ADDRESSES[2]}", "stage": 1, "model": 0}
