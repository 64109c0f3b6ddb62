"""Every way to install the chart gives manifests that Kubernetes knows, and pods that may do no more than they must."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart_rendering import (
    CHART,
    HELM,
    NAME,
    NAMESPACE,
    PODS,
    ROOT,
    STANDALONE,
    Manifest,
    Rendered,
    at,
    merged,
    render,
)

from tests.kube_fake import schema

PROVIDERS = ("none", "istio", "gke", "kgateway", "agentgateway", "envoy-gateway")
CERTIFICATES: dict[str, dict[str, Any]] = {
    "self-signed": {},
    "secret": at("picker.tls", {"mode": "secret", "secretName": "own"}),
    "cert-manager": at("picker.tls", {"mode": "cert-manager", "issuerRef": {"name": "ca"}}),
    "off": at("picker.tls.mode", "off"),
}
REPLICAS: dict[str, dict[str, Any]] = {
    "one": {},
    "leader": at("router.epp.replicas", 3),
    "all active": merged(at("router.epp.replicas", 3), at("picker.leaderElection", False)),
}
EVERYTHING = merged(
    at("picker.networkPolicy.enabled", True),
    at("router.monitoring.prometheus.enabled", True),
    at("router.epp.pluginsConfig", {"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig"}),
    at("picker.kvEvents", {"port": 5557, "replayPort": 5558}),
    at("picker.handoff", {"enabled": True, "tokenSecret": "pool-token"}),
)
POOLS = at("router.inferencePool.existing", [{"name": "a", "port": 9012}, {"name": "b", "port": 9022}])
ADDRESSES = merged(at("router.proxy.enabled", True), at("picker.endpoints", ["10.0.0.1:8000", "[fd00::1]:8000"]))
# Any two of provider, certificate and replicas meet; all three of them would be three times as many.
WAYS = {
    f"{provider}, {certificate}, {replicas}": merged(
        PODS,
        at("provider.name", provider),
        at("httpRoute.create", True),
        at("router.inferenceObjectives", [{"name": "batch", "priority": -1}]),
        CERTIFICATES[certificate],
        REPLICAS[replicas],
        EVERYTHING,
    )
    for (i, provider), (j, certificate) in itertools.product(enumerate(PROVIDERS), enumerate(CERTIFICATES))
    for replicas in [list(REPLICAS)[(i + j) % 3]]
    if (provider, certificate) not in {("kgateway", "off"), ("envoy-gateway", "off")}
}
WAYS |= {f"beside Envoy, {name}": merged(STANDALONE, values, EVERYTHING) for name, values in REPLICAS.items()}
WAYS |= {
    "least": PODS,
    "beside Envoy, least": STANDALONE,
    "beside Envoy, in a pool": merged(STANDALONE, at("router.inferencePool.create", True)),
    "beside Envoy, workers": merged(STANDALONE, at("picker.workers", 4), EVERYTHING),
    "own Envoy, workers": merged(PODS, at("picker.workers", 4), EVERYTHING),
    "by labels": merged(PODS, at("router.inferencePool.create", False), EVERYTHING),
    "pools that exist": merged(POOLS, EVERYTHING),
    "pools that exist, on GKE": merged(POOLS, at("provider.name", "gke"), at("picker.workers", 1)),
    "addresses": merged(ADDRESSES, EVERYTHING),
    "metrics by Google": merged(PODS, EVERYTHING, at("router.monitoring.provider.name", "gmp")),
    "kept on a claim": merged(PODS, at("picker.stateVolume.persistentVolumeClaim.claimName", "learned")),
}
CORE = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget"),
    *("Role", "RoleBinding", "Service", "ServiceAccount"),
}
OLDEST, NEWEST = "1.30", "1.37"
DEFINITIONS = {
    f"{crd['spec']['group']}/{crd['spec']['versions'][0]['name']} {crd['spec']['names']['kind']}": crd
    for crd in (yaml.safe_load(file.read_text()) for file in (ROOT / "crds").glob("*.yaml"))
}
FOREIGN = {
    each["kind"]: set(each["fields"])
    for each in yaml.safe_load(Path(__file__).with_name("foreign_kinds.yaml").read_text())
}


@cache
def installed(way: str) -> Rendered:
    return render(WAYS[way])


@pytest.fixture(params=WAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return installed(request.param)


def test_the_chart_is_clean() -> None:
    values = Path(__file__).with_name("least.yaml")
    linted = subprocess.run(
        [HELM, "lint", "--strict", CHART, "--values", values], capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


@cache
def known(manifest: str) -> bool:
    """Raises ValidationError."""
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(json.loads(manifest), version, strict=True)
    return True


def test_kubernetes_knows_every_field(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        if manifest["kind"] in CORE:
            assert known(json.dumps(manifest, sort_keys=True))


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The dotted path of everything that is written, list items as `[]`, any label as `*`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.*" if path.endswith("matchLabels") else f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path


def kind_of(manifest: Manifest) -> str:
    return f"{manifest['apiVersion']} {manifest['kind']}"


def test_custom_resources_fit_their_definitions(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        if kind_of(manifest) in DEFINITIONS:
            rules = DEFINITIONS[kind_of(manifest)]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            known, unknown = schema.pruned(manifest, rules)
            assert unknown == []
            assert schema.violations(schema.with_defaults(known, rules), rules) == []


def test_kinds_of_other_projects_have_fields_that_these_publish(rendered: Rendered) -> None:
    for manifest in rendered.manifests:
        if manifest["kind"] not in CORE and kind_of(manifest) not in DEFINITIONS:
            assert set(leaves({"spec": manifest["spec"]})) <= FOREIGN[kind_of(manifest)]


def test_no_two_objects_are_the_same_one_and_all_are_in_the_release_s_namespace(rendered: Rendered) -> None:
    keys = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in rendered.manifests]
    assert len(keys) == len(set(keys))
    assert {each["metadata"]["namespace"] for each in rendered.manifests} == {NAMESPACE}


def test_no_container_may_become_root_write_to_its_image_or_have_a_capability(rendered: Rendered) -> None:
    pod = rendered.pod
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container["name"]


def test_only_the_picker_is_given_a_token_and_only_where_it_asks_the_api_server(rendered: Rendered) -> None:
    mounts = {
        container["name"]
        for container in [*rendered.pod["initContainers"], *rendered.pod["containers"]]
        if any(mount["mountPath"].startswith("/var/run/secrets") for mount in container["volumeMounts"])
    }
    asks = "endpoints" not in rendered.flags
    assert rendered.pod["automountServiceAccountToken"] is False
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert mounts == ({"epp"} if asks else set())
    assert bool(rendered.of("Role")) == asks


def test_what_is_mounted_is_there_and_what_is_there_is_mounted(rendered: Rendered) -> None:
    containers = [*rendered.pod["initContainers"], *rendered.pod["containers"]]
    mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in rendered.pod["volumes"]}


def test_probes_services_and_policies_name_ports_that_the_pod_has(rendered: Rendered) -> None:
    ports = [port for container in rendered.pod["containers"] for port in container["ports"]]
    names, numbers = [port["name"] for port in ports], [port["containerPort"] for port in ports]
    assert len(set(names)) == len(names)
    assert len(set(numbers)) == len(numbers)
    for service in rendered.of("Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(names)
    for container in rendered.pod["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe].get("grpc") or container[probe]["tcpSocket"]
            assert asked["port"] in {*names, *numbers}
    for policy in rendered.of("NetworkPolicy"):
        assert {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]} <= set(names)


def test_selectors_find_the_pods_of_the_release(rendered: Rendered) -> None:
    labels = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    selectors: list[Manifest] = [rendered.one("Deployment")["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in rendered.of("Service")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in rendered.of("NetworkPolicy")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in rendered.of("PodDisruptionBudget")]
    for selector in selectors:
        assert selector.items() <= labels


def test_a_pod_is_not_killed_before_it_has_drained(rendered: Rendered) -> None:
    seconds = int(rendered.flags["drain-timeout"].rstrip("s"))
    sleeps = [
        each.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}}) for each in rendered.pod["containers"]
    ]
    longest = max(sleep["sleep"]["seconds"] for sleep in sleeps)
    assert rendered.pod["terminationGracePeriodSeconds"] > seconds + longest


def test_an_envoy_beside_picker_stops_before_it(rendered: Rendered) -> None:
    if "envoy" in {each["name"] for each in rendered.pod["containers"]}:
        pauses = [rendered.container(name)["lifecycle"]["preStop"]["sleep"]["seconds"] for name in ("envoy", "epp")]
        assert pauses[0] < pauses[1]


def test_beside_envoy_no_gateway_api_and_no_custom_resource_is_needed() -> None:
    assert {each["kind"] for each in installed("beside Envoy, least").manifests} <= CORE


def test_who_may_send_requests_from_outside_may_not_read_the_metrics() -> None:
    rendered = render(STANDALONE, at("router.proxy.serviceType", "LoadBalancer"))
    assert [port["targetPort"] for port in rendered.service["spec"]["ports"]] == ["http"]
    (metrics,) = [each for each in rendered.of("Service") if each is not rendered.service]
    assert [port["name"] for port in metrics["spec"]["ports"]] == ["http-metrics"]
    assert metrics["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_a_leader_can_be_replaced_and_evicted_and_others_go_one_at_a_time() -> None:
    led, active = render(PODS, REPLICAS["leader"]), render(PODS, REPLICAS["all active"])
    assert led.one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": "100%", "maxSurge": "100%"}
    assert led.of("PodDisruptionBudget") == []
    assert active.one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert active.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_a_claim_is_let_go_before_the_next_pod_takes_it() -> None:
    assert installed("kept on a claim").one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def test_the_pool_names_the_service_and_a_port_that_it_has(rendered: Rendered) -> None:
    for pool in rendered.of("InferencePool"):
        reference = pool["spec"].get("endpointPickerRef")
        if reference is None:
            assert rendered.container("envoy"), "nobody else asks this picker"
        else:
            assert reference["name"] == NAME
            assert reference["port"]["number"] in {port["port"] for port in rendered.service["spec"]["ports"]}


def test_every_pool_that_exists_has_a_port_on_which_picker_is_asked_about_it() -> None:
    rendered = installed("pools that exist")
    assert rendered.flags["pool-name"] == "a:9012,b:9022"
    assert {9012, 9022} <= {port["port"] for port in rendered.service["spec"]["ports"]}
