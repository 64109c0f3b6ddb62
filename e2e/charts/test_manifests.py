"""`manifests/`: every file is valid on its own, and together they lead a request from the gateway to an engine.

Gateway API's and Istio's kinds are not judged by a schema here: this repository has none of theirs.
"""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from api_servers import ROOT
from chart_rendering import render
from cluster_tools import Space
from plain_manifest import plain

MANIFESTS = ROOT / "manifests"
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if not path.name.endswith("-values.yaml"))
ELSEWHERE = ("gateway.networking.k8s.io", "networking.istio.io")
OURS = ("inference.networking.k8s.io", "llm-d.ai")
Manifest = dict[str, Any]


def read(path: Path | str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all((MANIFESTS / path).read_text()) if each]


def group(manifest: Manifest) -> str:
    api = str(manifest["apiVersion"])
    return api.partition("/")[0] if "/" in api else ""


def of_kind(path: str, kind: str) -> Manifest:
    (only,) = [each for each in read(path) if each["kind"] == kind]
    return only


def template(path: str) -> Manifest:
    return dict(of_kind(path, "Deployment")["spec"]["template"])


ENGINES = [f"engines/{path.name}" for path in (MANIFESTS / "engines").glob("*.yaml")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_kubernetes_knows_every_field(path: Path) -> None:
    for manifest in read(path):
        if group(manifest) not in (*OURS, *ELSEWHERE):
            kubernetes_validate.validate(manifest, "1.35", strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_an_api_server_takes_it(space: Space, path: Path) -> None:
    for manifest in read(path):
        if group(manifest) not in ELSEWHERE:
            meta = {name: value for name, value in manifest["metadata"].items() if name != "namespace"}
            text = yaml.safe_dump({**manifest, "metadata": meta})
            space.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)


def test_the_plain_picker_is_what_the_chart_renders(kube_tools: None) -> None:
    assert (MANIFESTS / "picker.yaml").read_text() == plain(), "run `make manifests`"


@pytest.mark.parametrize("path", ENGINES)
def test_an_engine_is_in_the_pool_and_listens_where_the_pool_sends(path: str) -> None:
    pool, pod = of_kind("pools/chat.yaml", "InferencePool")["spec"], template(path)
    assert pool["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (engine,) = pod["spec"]["containers"]
    listening = {port["containerPort"] for port in engine["ports"]}
    assert {port["number"] for port in pool["targetPorts"]} <= listening
    assert {int(value) for value in pod["metadata"].get("annotations", {}).values()} <= listening


def test_gpus_are_asked_for_on_nodes_that_have_them() -> None:
    pod = template("engines/vllm-nvidia.yaml")["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" in [toleration["key"] for toleration in pod["tolerations"]]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}


def test_the_pool_names_the_picker_and_the_picker_serves_the_pool() -> None:
    reference = of_kind("pools/chat.yaml", "InferencePool")["spec"]["endpointPickerRef"]
    service = of_kind("picker.yaml", "Service")
    assert service["metadata"]["name"] == reference["name"]
    assert reference["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]
    pod = template("picker.yaml")
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (picker,) = [each for each in pod["spec"]["containers"] if each["name"] == "epp"]
    assert any("chat" in argument for argument in picker["args"] if argument.startswith("--pool-name"))


@pytest.mark.parametrize("gateway", ["gateway/istio.yaml", "gateway/kgateway.yaml"])
def test_the_route_leads_from_the_gateway_to_the_pool(gateway: str) -> None:
    route = of_kind("gateway/route.yaml", "HTTPRoute")["spec"]
    assert [parent["name"] for parent in route["parentRefs"]] == [of_kind(gateway, "Gateway")["metadata"]["name"]]
    (backend,) = route["rules"][0]["backendRefs"]
    pool = of_kind("pools/chat.yaml", "InferencePool")
    assert (backend["group"], backend["kind"], backend["name"]) == (group(pool), "InferencePool", "chat")


def test_istio_speaks_to_the_picker_by_its_whole_name() -> None:
    rule, service = of_kind("gateway/istio.yaml", "DestinationRule"), of_kind("picker.yaml", "Service")["metadata"]
    assert rule["spec"]["host"] == f"{service['name']}.{service['namespace']}.svc.cluster.local"


def test_objectives_and_rewrites_are_of_the_pool() -> None:
    named = [
        each["spec"]["poolRef"]["name"] for path in ("objectives", "rewrite") for each in read(f"pools/{path}.yaml")
    ]
    assert set(named) == {"chat"}


def test_everything_is_in_one_namespace() -> None:
    manifests = [manifest for path in FILES for manifest in read(path) if manifest["kind"] != "Namespace"]
    assert {manifest["metadata"]["namespace"] for manifest in manifests} == {"inference"}


def test_the_chart_with_the_values_of_the_kind_cluster_leads_from_its_gateway_to_every_engine() -> None:
    kind = ROOT / "e2e" / "kind"
    rendered = render(yaml.safe_load((kind / "values.yaml").read_text()))
    pool, route = rendered.one("InferencePool"), rendered.one("HTTPRoute")["spec"]
    gateway = yaml.safe_load((kind / "gateway.yaml").read_text())
    assert [parent["name"] for parent in route["parentRefs"]] == [gateway["metadata"]["name"]]
    assert [backend["name"] for backend in route["rules"][0]["backendRefs"]] == [pool["metadata"]["name"]]
    for path in ENGINES:
        assert pool["spec"]["selector"]["matchLabels"].items() <= template(path)["metadata"]["labels"].items()


def test_no_engine_is_given_a_token_or_a_way_to_more_rights() -> None:
    for path in ENGINES:
        pod = template(path)["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
