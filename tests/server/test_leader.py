"""The Lease: one candidate of several leads, and knows in time when it does no more."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from picker.server.leader import Leadership, Timing
from tests.kube_fake import ApiError, FakeApiServer, fake_api_server

LEASE = "epp-models-chat.llm-d.ai"
QUICK = Timing(lease_s=2, renew_s=1.25, retry_s=1.0, call_s=0.5)
"""As quick as the client's election lets it be."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with fake_api_server() as fake:
        fake.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "models"}})
        yield fake


@contextlib.asynccontextmanager
async def candidate(server: FakeApiServer, identity: str, *, polite: bool = False) -> AsyncIterator[Leadership]:
    """A candidate that competes; a polite one gives the lease back at its end."""
    async with ApiClient(Configuration(host=server.url)) as api:
        leadership = Leadership(api, LEASE, "models", identity, lambda _: None, QUICK)
        task = asyncio.create_task(leadership.run())
        yield leadership
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if polite:
            await leadership.release()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def lease(server: FakeApiServer) -> Mapping[str, Any]:
    resource = server.cluster.resource("coordination.k8s.io", "v1", "leases")
    return server.cluster.get(resource, ("models", LEASE))


async def test_while_one_candidate_renews_the_lease_no_other_leads(server: FakeApiServer) -> None:
    async with candidate(server, "a") as first:
        await until(lambda: first.leading)
        held = lease(server)["spec"]
        async with candidate(server, "b") as second:
            await until(lambda: lease(server)["spec"]["renewTime"] != held["renewTime"])
            assert (first.leading, second.leading) == (True, False)
            assert lease(server)["spec"]["holderIdentity"] == "a"


async def test_what_was_given_back_is_taken_at_the_next_attempt(server: FakeApiServer) -> None:
    async with candidate(server, "a", polite=True) as first:
        await until(lambda: first.leading)
    assert not lease(server)["spec"].get("holderIdentity")
    async with candidate(server, "b") as second:
        await until(lambda: second.leading)
        assert lease(server)["spec"]["holderIdentity"] == "b"


async def test_a_leader_without_an_api_server_leads_no_more_and_again_when_it_is_back(server: FakeApiServer) -> None:
    async with candidate(server, "a") as leadership:
        await until(lambda: leadership.leading)
        await server.down()
        await until(lambda: not leadership.leading)
        await server.up()
        await until(lambda: leadership.leading)


async def test_a_lease_that_another_took_is_not_led_by(server: FakeApiServer) -> None:
    async with candidate(server, "a") as leadership:
        await until(lambda: leadership.leading)
        taken = lease(server)
        server.cluster.put({**taken, "spec": {**taken["spec"], "holderIdentity": "b", "leaseDurationSeconds": 3600}})
        await until(lambda: not leadership.leading)
        await leadership.release()
        assert lease(server)["spec"]["holderIdentity"] == "b"


@pytest.mark.parametrize("code", [403, 500])
async def test_an_api_server_that_refuses_makes_no_leader_and_ends_no_election(
    server: FakeApiServer, code: int
) -> None:
    server.fault = lambda call: ApiError(code, "Refused", "no")
    async with candidate(server, "a") as leadership:
        await until(lambda: len(server.calls) > 1)
        assert not leadership.leading
        server.fault = lambda call: None
        await until(lambda: leadership.leading)


async def test_an_api_server_that_never_answers_is_not_waited_for() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        await asyncio.sleep(3600)

    heard: list[bytes] = []
    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as api:
        leadership = Leadership(api, LEASE, "models", "a", lambda _: None, QUICK)
        task = asyncio.create_task(leadership.run())
        await until(lambda: len(heard) > 1)
        assert not leadership.leading
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    server.close()
