"""The fake API server's lists and watches: nothing lost, nothing twice, and 410 where history has gone."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.kube_fake import FakeApiServer, fake_api_server

PODS = "/api/v1/namespaces/default/pods"


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeApiServer]:
    async with fake_api_server() as server:
        yield server


@pytest_asyncio.fixture
async def http(fake: FakeApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(fake.url) as session:
        yield session


def pod(name: str, namespace: str = "default", **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}}


async def listed(http: aiohttp.ClientSession, **params: Any) -> Any:
    async with http.get(PODS, params=params) as response:
        return await response.json()


class Watch:
    """A watch under way, read event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(self.response.content.readline(), 5))
        return event

    async def told(self, count: int) -> list[tuple[str, str]]:
        return [
            (event["type"], event["object"]["metadata"]["name"]) for event in [await self.next() for _ in range(count)]
        ]

    async def rest(self) -> list[dict[str, Any]]:
        return [json.loads(line) async for line in self.response.content]


@contextlib.asynccontextmanager
async def watch(http: aiohttp.ClientSession, **params: Any) -> AsyncIterator[Watch]:
    async with http.get(PODS, params={"watch": "true", **params}) as response:
        yield Watch(response)


async def test_a_watch_goes_on_where_the_list_ended(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.put(pod("before"))
    version = (await listed(http))["metadata"]["resourceVersion"]
    fake.cluster.put(pod("between"))
    async with watch(http, resourceVersion=version) as stream:
        fake.cluster.put(pod("after"))
        assert await stream.told(2) == [("ADDED", "between"), ("ADDED", "after")]


async def test_a_watch_from_nowhere_begins_with_what_there_is(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.put(pod("a"))
    async with watch(http) as stream:
        fake.cluster.put(pod("b"))
        assert await stream.told(2) == [("ADDED", "a"), ("ADDED", "b")]


async def test_an_object_enters_and_leaves_a_selection(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    async with watch(http, resourceVersion=fake.cluster.store.version, labelSelector="app in (x, y),!off") as stream:
        for labels in ({}, {"app": "x"}, {"app": "y"}, {"app": "y", "off": "1"}, {"app": "x"}):
            fake.cluster.put(pod("p", **labels))
        kinds = [kind for kind, _ in await stream.told(4)]
    assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED"]


async def test_a_watch_is_of_its_namespace(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    async with watch(http, resourceVersion=fake.cluster.store.version) as stream:
        fake.cluster.put(pod("theirs", namespace="other"))
        fake.cluster.put(pod("ours"))
        assert await stream.told(1) == [("ADDED", "ours")]


async def test_a_bookmark_carries_the_version_of_writes_that_were_not_for_us(
    fake: FakeApiServer, http: aiohttp.ClientSession
) -> None:
    fake.bookmark_every_s = 0.05
    async with watch(http, resourceVersion=fake.cluster.store.version, allowWatchBookmarks="true") as stream:
        fake.cluster.put(pod("theirs", namespace="other"))
        event = await stream.next()
        while event["object"]["metadata"]["resourceVersion"] != str(fake.cluster.store.version):
            event = await stream.next()
    assert event["type"] == "BOOKMARK"


async def test_a_streamed_list_says_where_it_ends(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.put(pod("a"))
    how = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with watch(http, **how) as stream:
        assert (await stream.next())["type"] == "ADDED"
        last = await stream.next()
    assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_ends_at_its_time_out_with_a_bookmark(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    version = fake.cluster.store.version
    async with watch(http, resourceVersion=version, timeoutSeconds=1, allowWatchBookmarks="true") as stream:
        assert [event["type"] for event in await stream.rest()] == ["BOOKMARK"]


async def test_history_that_has_gone_is_an_error_event(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    version = fake.cluster.store.version
    fake.cluster.put(pod("a"))
    fake.cluster.store.compact()
    async with watch(http, resourceVersion=version) as stream:
        (event,) = await stream.rest()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_only_so_many_writes_are_remembered(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.store.history = 3
    version = fake.cluster.store.version
    for number in range(5):
        fake.cluster.put(pod(f"p{number}"))
    async with watch(http, resourceVersion=version) as stream:
        assert (await stream.next())["object"]["code"] == 410
    async with watch(http, resourceVersion=fake.cluster.store.version - 3) as stream:
        assert [name for _, name in await stream.told(3)] == ["p2", "p3", "p4"]


async def test_pages_are_of_one_moment(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    for number in range(5):
        fake.cluster.put(pod(f"p{number}"))
    first = await listed(http, limit=2)
    fake.cluster.put(pod("p9"))
    second = await listed(http, limit=9, **{"continue": first["metadata"]["continue"]})
    names = [item["metadata"]["name"] for page in (first, second) for item in page["items"]]
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    assert first["metadata"]["remainingItemCount"] == 3
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_an_old_page_is_gone(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    for number in range(3):
        fake.cluster.put(pod(f"p{number}"))
    first = await listed(http, limit=1)
    fake.cluster.store.compact()
    assert (await listed(http, limit=1, **{"continue": first["metadata"]["continue"]}))["code"] == 410


async def test_the_future_cannot_be_listed(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    told = await listed(http, resourceVersion=fake.cluster.store.version + 1, resourceVersionMatch="NotOlderThan")
    assert (told["code"], told["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_a_server_that_was_away_has_its_objects_still(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.put(pod("a"))
    async with watch(http, resourceVersion=fake.cluster.store.version) as stream:
        await fake.down()
        with pytest.raises(aiohttp.ClientError):
            await stream.rest()
    with pytest.raises(aiohttp.ClientError):
        await listed(http)
    await fake.up()
    assert [item["metadata"]["name"] for item in (await listed(http))["items"]] == ["a"]


@pytest.mark.parametrize(
    ("selector", "names"),
    [("app=x", "a"), ("app!=x", "b c"), ("app", "a b"), ("!app", "c"), ("app notin (x,z)", "b c"), ("app==y", "b")],
)
async def test_label_selectors(fake: FakeApiServer, http: aiohttp.ClientSession, selector: str, names: str) -> None:
    for obj in (pod("a", app="x"), pod("b", app="y"), pod("c")):
        fake.cluster.put(obj)
    found = await listed(http, labelSelector=selector)
    assert [item["metadata"]["name"] for item in found["items"]] == names.split()


async def test_field_selectors_are_of_fields_that_are_indexed(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.cluster.put({**pod("a"), "spec": {"nodeName": "n1"}})
    fake.cluster.put(pod("b"))
    assert [item["metadata"]["name"] for item in (await listed(http, fieldSelector="spec.nodeName=n1"))["items"]] == [
        "a"
    ]
    assert (await listed(http, fieldSelector="spec.image=x"))["code"] == 400
