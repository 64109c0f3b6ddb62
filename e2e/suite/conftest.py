"""A gateway from outside: its URL is all that these tests know.

    GATEWAY_URL=http://HOST:PORT pytest e2e/suite

`GATEWAY_MODEL`: the model to ask for, by default the first of /v1/models. `GATEWAY_TOKEN`: sent as a bearer token.
`GATEWAY_WITHOUT`: words of FEATURES that the engines behind it do not have; their tests are left out and counted.
"""

import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from client import Client

FEATURES = {
    "embeddings": "the engines serve /v1/embeddings",
    "cached-tokens": "the engines report usage.prompt_tokens_details.cached_tokens",
}
TIMEOUT_S = 120.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(feature): what the engines must be able to do")
    without = set(os.environ.get("GATEWAY_WITHOUT", "").split())
    if unknown := without - FEATURES.keys():
        raise pytest.UsageError(f"GATEWAY_WITHOUT: {' '.join(sorted(unknown))} is none of {' '.join(FEATURES)}")
    if not os.environ.get("GATEWAY_URL"):
        raise pytest.UsageError("say where the gateway is: GATEWAY_URL=http://HOST:PORT pytest e2e/suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without = set(os.environ.get("GATEWAY_WITHOUT", "").split())
    left_out = [item for item in items if without & {mark.args[0] for mark in item.iter_markers("needs")}]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Client]:
    """A client of the gateway."""
    token = os.environ.get("GATEWAY_TOKEN")
    async with aiohttp.ClientSession(
        os.environ["GATEWAY_URL"],
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=0),
    ) as session:
        client = Client(session, os.environ.get("GATEWAY_MODEL", ""))
        if not client.model:
            listed = await client.get("/v1/models")
            client.model = listed.json()["data"][0]["id"]
        yield client
