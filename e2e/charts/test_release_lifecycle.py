"""The chart as a release: install, upgrade, roll back, uninstall, by the real helm against an API server."""

import pytest
from chart_rendering import CHART, NAME, PODS, RELEASE, STANDALONE, at, merged
from cluster_tools import Failed, Space

OWNED = (
    "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies,"
    "inferencepools.inference.networking.k8s.io,inferenceobjectives.llm-d.ai"
)
SELECTOR = f"app.kubernetes.io/instance={RELEASE}"
TWO = merged(PODS, at("router.epp.replicas", 2))
OBJECTIVE = merged(PODS, at("router.inferenceObjectives", [{"name": "batch", "priority": -1}]))


def revisions(space: Space) -> list[tuple[str, str]]:
    """(revision, status) of the release, oldest first."""
    lines = space.helm("history", RELEASE).splitlines()[1:]
    return [(fields[0].strip(), fields[2].strip()) for fields in (line.split("\t") for line in lines)]


def replicas(space: Space) -> int:
    return int(space.get("deployment", NAME)["spec"]["replicas"])


def test_an_install_makes_a_picker_and_its_pool(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    (pool,) = space.names("infpool")
    spec = space.get("infpool", pool.partition("/")[2])["spec"]
    service = spec["endpointPickerRef"]["name"]
    assert spec["selector"] == {"matchLabels": {"app": "vllm"}}
    assert spec["endpointPickerRef"]["kind"] == "Service", "a default of the schema"
    ports = {port["port"] for port in space.get("service", service)["spec"]["ports"]}
    assert spec["endpointPickerRef"]["port"]["number"] in ports
    assert replicas(space) == 1


def test_an_upgrade_changes_what_the_values_change(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    before = space.get("deployment", NAME)
    space.helm("upgrade", RELEASE, CHART, values=TWO)
    after = space.get("deployment", NAME)
    assert after["spec"]["replicas"] == 2
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["metadata"]["generation"] > before["metadata"]["generation"]
    assert revisions(space) == [("1", "superseded"), ("2", "deployed")]


def test_an_upgrade_takes_away_what_is_no_longer_wanted(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=OBJECTIVE)
    assert space.get("inferenceobjectives.llm-d.ai", "batch")["spec"]["priority"] == -1
    space.helm("upgrade", RELEASE, CHART, values=PODS)
    assert space.names("inferenceobjectives.llm-d.ai") == []


def test_an_upgrade_with_wrong_values_leaves_the_release_as_it_is(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    with pytest.raises(Failed, match="replicas"):
        space.helm("upgrade", RELEASE, CHART, values=merged(PODS, at("router.epp.replicas", "two")))
    assert revisions(space) == [("1", "deployed")]


def test_a_rollback_brings_the_first_values_back(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    first = space.get("deployment", NAME)["spec"]
    space.helm("upgrade", RELEASE, CHART, values=TWO)
    space.helm("rollback", RELEASE, "1")
    assert space.get("deployment", NAME)["spec"] == first
    assert revisions(space)[-1] == ("3", "deployed")


@pytest.mark.parametrize("values", [PODS, TWO, OBJECTIVE, STANDALONE], ids=["one", "two", "objective", "standalone"])
def test_an_uninstall_leaves_nothing(space: Space, values: dict[str, object]) -> None:
    space.helm("install", RELEASE, CHART, values=values)
    assert len(space.names(OWNED, SELECTOR)) > 3
    space.helm("uninstall", RELEASE)
    assert space.names(OWNED, SELECTOR) == []


def test_two_releases_live_in_one_namespace(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    space.helm("install", "other", CHART, values=PODS)
    space.helm("uninstall", "other")
    assert replicas(space) == 1


def test_from_a_gateway_to_its_own_envoy_and_back(space: Space) -> None:
    space.helm("install", RELEASE, CHART, values=PODS)
    space.helm("upgrade", RELEASE, CHART, values=STANDALONE)
    assert space.names("infpool") == []
    space.helm("upgrade", RELEASE, CHART, values=PODS)
    assert len(space.names("infpool")) == 1
