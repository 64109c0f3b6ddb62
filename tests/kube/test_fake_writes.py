"""The fake API server's writes: what a real one would answer."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.kube_fake import FakeApiServer, fake_api_server

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeApiServer]:
    async with fake_api_server() as server:
        yield server


@pytest_asyncio.fixture
async def http(fake: FakeApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(fake.url) as session:
        yield session


def named(name: str, **parts: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **parts}


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", **named("a", data=data)}


async def ask(http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **how: Any) -> tuple[int, Any]:
    async with http.request(method, path, json=body, **how) as response:
        return response.status, await response.json()


def changed(obj: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    return {**obj, "spec": {**obj.get("spec", {}), **spec}}


async def test_two_writers_who_read_the_same_version_cannot_both_win(http: aiohttp.ClientSession) -> None:
    _, lease = await ask(http, "POST", LEASES, named("leader", spec={"holderIdentity": "nobody"}))
    first, _ = await ask(http, "PUT", f"{LEASES}/leader", changed(lease, holderIdentity="a"))
    second, told = await ask(http, "PUT", f"{LEASES}/leader", changed(lease, holderIdentity="b"))
    assert (first, second, told["reason"]) == (200, 409, "Conflict")


async def test_a_lease_is_not_updated_without_saying_which_version_was_read(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", LEASES, named("leader", spec={}))
    status, _ = await ask(http, "PUT", f"{LEASES}/leader", named("leader", spec={"holderIdentity": "me"}))
    assert status == 422


async def test_a_name_is_given_once(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", MAPS, named("a"))
    status, told = await ask(http, "POST", MAPS, named("a"))
    assert (status, told["reason"]) == (409, "AlreadyExists")


@pytest.mark.parametrize("name", ["", "UPPER", "under_score", "a" * 254, "-dash"])
async def test_a_name_that_is_no_dns_name_is_refused(http: aiohttp.ClientSession, name: str) -> None:
    assert (await ask(http, "POST", MAPS, named(name)))[0] == 422


async def test_a_namespace_must_exist(http: aiohttp.ClientSession) -> None:
    path = "/api/v1/namespaces/nowhere/configmaps"
    assert (await ask(http, "POST", path, named("a")))[0] == 404
    await ask(http, "POST", "/api/v1/namespaces", named("nowhere"))
    assert (await ask(http, "POST", path, named("a")))[0] == 201


async def test_a_generation_counts_changes_of_the_spec_alone(http: aiohttp.ClientSession) -> None:
    generations = [
        (await ask(http, "POST", DEPLOYMENTS, named("d", spec={"replicas": 1})))[1]["metadata"]["generation"]
    ]
    for body in ({"metadata": {"labels": {"a": "b"}}}, {"spec": {"replicas": 2}}, {"status": {"replicas": 9}}):
        _, obj = await ask(http, "PATCH", f"{DEPLOYMENTS}/d", body, headers={"Content-Type": MERGE})
        generations.append(obj["metadata"]["generation"])
    assert generations == [1, 1, 2, 2]


async def test_status_is_written_by_its_subresource_alone(http: aiohttp.ClientSession) -> None:
    _, pod = await ask(http, "POST", PODS, named("p", spec={"containers": []}, status={"phase": "Running"}))
    assert pod["status"] == {"phase": "Pending"}
    body = {"spec": {"nodeName": "stolen"}, "status": {"phase": "Running"}}
    _, pod = await ask(http, "PATCH", f"{PODS}/p/status", body, headers={"Content-Type": MERGE})
    assert (pod["status"], pod["spec"]) == ({"phase": "Running"}, {"containers": []})


async def test_a_write_that_changes_nothing_makes_no_new_version(http: aiohttp.ClientSession) -> None:
    _, before = await ask(http, "POST", MAPS, named("a", data={"k": "v"}))
    _, after = await ask(http, "PUT", f"{MAPS}/a", before)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_pod_on_a_node_goes_when_its_kubelet_says_so(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", PODS, named("p", spec={"nodeName": "n"}))
    _, marked = await ask(http, "DELETE", f"{PODS}/p")
    assert "deletionTimestamp" in marked["metadata"]
    await ask(http, "DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await ask(http, "GET", f"{PODS}/p"))[0] == 404


async def test_a_finalizer_holds_an_object_until_it_is_taken_off(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", MAPS, {"metadata": {"name": "a", "finalizers": ["x.io/wait"]}})
    await ask(http, "DELETE", f"{MAPS}/a")
    assert (await ask(http, "GET", f"{MAPS}/a"))[0] == 200
    await ask(http, "PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}}, headers={"Content-Type": MERGE})
    assert (await ask(http, "GET", f"{MAPS}/a"))[0] == 404


async def test_a_deployment_keeps_its_selector(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", DEPLOYMENTS, named("d", spec={"selector": {"matchLabels": {"app": "a"}}}))
    body = {"spec": {"selector": {"matchLabels": {"app": "b"}}}}
    status, told = await ask(http, "PATCH", f"{DEPLOYMENTS}/d", body, headers={"Content-Type": MERGE})
    assert (status, told["details"]["causes"][0]["field"]) == (422, "spec.selector")


async def test_a_dry_run_answers_and_stores_nothing(http: aiohttp.ClientSession) -> None:
    assert (await ask(http, "POST", f"{MAPS}?dryRun=All", named("a")))[0] == 201
    assert (await ask(http, "GET", f"{MAPS}/a"))[0] == 404


async def test_json_patch_tests_before_it_writes(http: aiohttp.ClientSession) -> None:
    await ask(http, "POST", MAPS, named("a", data={"k": "v"}))
    how = {"headers": {"Content-Type": "application/json-patch+json"}}
    swap = [{"op": "test", "path": "/data/k", "value": "v"}, {"op": "replace", "path": "/data/k", "value": "w"}]
    _, obj = await ask(http, "PATCH", f"{MAPS}/a", swap, **how)
    assert obj["data"] == {"k": "w"}
    assert (await ask(http, "PATCH", f"{MAPS}/a", swap, **how))[0] == 422


async def test_an_applier_takes_back_what_it_no_longer_says(http: aiohttp.ClientSession) -> None:
    how = {"headers": {"Content-Type": "application/apply-patch+yaml"}, "params": {"fieldManager": "me"}}
    await ask(http, "PATCH", f"{MAPS}/a", config_map(old="1", both="1"), **how)
    await ask(http, "PATCH", f"{MAPS}/a", {"data": {"theirs": "1"}}, headers={"Content-Type": MERGE})
    _, obj = await ask(http, "PATCH", f"{MAPS}/a", config_map(both="2"), **how)
    assert obj["data"] == {"both": "2", "theirs": "1"}


async def test_calls_are_refused_as_rbac_would(fake: FakeApiServer, http: aiohttp.ClientSession) -> None:
    fake.authorize = lambda call: (call.verb, call.resource) == ("list", "pods")
    assert (await ask(http, "GET", PODS))[0] == 200
    status, told = await ask(http, "GET", MAPS)
    assert (status, told["reason"]) == (403, "Forbidden")
    assert [(call.verb, call.resource) for call in fake.calls] == [("list", "pods"), ("list", "configmaps")]


@pytest.mark.parametrize("path", ["/api/v1/nonsense", "/apis/x.io/v1/things", "/api/v1/namespaces/a/b/c/d/e", "/x"])
async def test_what_there_is_not_is_not_found(http: aiohttp.ClientSession, path: str) -> None:
    assert (await ask(http, "GET", path))[0] == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"metadata": 1}'])
async def test_a_body_that_is_no_object_is_a_bad_request(http: aiohttp.ClientSession, body: bytes) -> None:
    async with http.post(MAPS, data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
