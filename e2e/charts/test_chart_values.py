"""What the values say: wrong ones are refused by their path, right ones reach the picker's own command line."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_rendering import NAME, NAMESPACE, PODS, RELEASE, STANDALONE, Refused, Rendered, at, merged, notes, render
from click.testing import CliRunner

from picker.pool.kube.access import rules
from picker.pool.kube.scope import KubeScope
from picker.server import serve_command
from picker.server.cli import main
from picker.server.config import load_config
from picker.server.options import ServeOptions

WRONG: list[tuple[str, Any, str]] = [
    ("router.epp.replicas", "two", "'/router/epp/replicas': got string, want integer"),
    ("router.epp.replicaz", 2, "'/router/epp': additional properties 'replicaz' not allowed"),
    ("router.epp.resources.requests.cpu", None, "'/router/epp/resources/requests': missing property 'cpu'"),
    ("router.epp.image.pullPolicy", "Sometimes", "'/router/epp/image/pullPolicy'"),
    ("router.modelServers.targetPorts", [{"number": 0}], "'/router/modelServers/targetPorts/0/number'"),
    (
        "router.modelServers.targetPorts",
        [{"number": port} for port in range(1, 10)],
        "'/router/modelServers/targetPorts'",
    ),
    ("router.modelServers.protocol", "grpc", "'/router/modelServers/protocol'"),
    ("router.inferencePool.failureMode", "FailClosed", "'/router/inferencePool/failureMode'"),
    ("router.latencyPredictor.enabled", True, "'/router/latencyPredictor/enabled': value must be false"),
    ("router.tokenizer.enabled", True, "'/router/tokenizer/enabled': value must be false"),
    ("router.monitoring.prometheus.auth.enabled", True, "'/router/monitoring/prometheus/auth/enabled'"),
    ("router.proxy.mode", "service", "'/router/proxy/mode'"),
    ("provider.name", "nginx", "'/provider/name': value must be one of"),
    ("httpRoute.requestTimeout", "5 minutes", "'/httpRoute/requestTimeout'"),
    ("picker.tls.mode", "none", "'/picker/tls/mode'"),
    ("picker.endpoints", ["engine.local:8000"], "'/picker/endpoints/0'"),
    ("picker.stateVolume", {"emptyDir": {}, "hostPath": {"path": "/x"}}, "'/picker/stateVolume'"),
]
AT_ODDS: dict[str, dict[str, Any]] = {
    "router.modelServers.matchLabels": {},
    "router.inferenceObjectives": merged(STANDALONE, at("router.inferenceObjectives", [{"name": "x", "priority": 1}])),
    "httpRoute.create": merged(STANDALONE, at("httpRoute.create", True)),
    "router.proxy.enabled": merged(STANDALONE, at("provider.name", "istio")),
    "router.inferencePool.create": merged(PODS, at("router.inferencePool.create", False), at("provider.name", "gke")),
    "router.inferencePool.existing": merged(PODS, at("router.inferencePool.existing", [{"name": "a"}])),
    "router.inferencePool.existing: pool a": at("router.inferencePool.existing", [{"name": "a"}, {"name": "b"}]),
    "picker.workers": merged(PODS, at("picker.workers", 2), at("provider.name", "istio")),
    "picker.workers: a follower": merged(STANDALONE, at("picker.workers", 2), at("router.epp.replicas", 2)),
    "picker.tls.mode": merged(PODS, at("picker.tls.mode", "off"), at("provider.name", "kgateway")),
    "picker.tls.secretName": merged(PODS, at("picker.tls.mode", "secret")),
    "picker.tls.issuerRef.name": merged(PODS, at("picker.tls.mode", "cert-manager")),
    "picker.endpoints": merged(PODS, at("picker.endpoints", ["10.0.0.1:8000"])),
    "picker.leaderElection": merged(at("picker.endpoints", ["10.0.0.1:8000"]), at("picker.leaderElection", True)),
    "picker.stateVolume": merged(
        PODS, at("router.epp.replicas", 2), at("picker.stateVolume.persistentVolumeClaim.claimName", "x")
    ),
    "router.epp.pluginsConfigFile": merged(PODS, at("router.epp.pluginsCustomConfig", {"mine.yaml": "a: 1"})),
    "router.epp": merged(
        STANDALONE,
        at("router.epp.pluginsConfig.plugins", [{"type": "picker-settings", "parameters": {"destinations": 3}}]),
    ),
    "router.epp.pluginsCustomConfig": merged(
        STANDALONE, at("router.epp.pluginsCustomConfig", {"default-plugins.yaml": "{"})
    ),
}


@pytest.mark.parametrize(("path", "value", "said"), WRONG, ids=[path for path, _, _ in WRONG])
def test_a_wrong_value_is_refused_with_its_path(path: str, value: Any, said: str) -> None:
    with pytest.raises(Refused, match=re.escape(said)):
        render(PODS, at(path, value))


@pytest.mark.parametrize("named", AT_ODDS)
def test_values_that_do_not_go_together_are_refused_by_name(named: str) -> None:
    with pytest.raises(Refused, match=re.escape(f"): {named}")):
        render(AT_ODDS[named])


def test_values_of_the_peers_charts_that_are_switched_off_are_taken() -> None:
    render(PODS, at("router.latencyPredictor", {"enabled": False, "trainingServer": {"port": 8000}}))


# ------------------------------------------------------------------ what the API server allows

SCOPES = {
    "pool": (PODS, KubeScope(NAMESPACE, pool=RELEASE)),
    "labels": (STANDALONE, KubeScope(NAMESPACE, selector={"app": "vllm"}, target_ports=(8000,))),
}


@pytest.mark.parametrize("elects", [False, True])
@pytest.mark.parametrize("mode", SCOPES)
def test_the_role_allows_the_calls_that_picker_makes_and_no_others(mode: str, elects: bool) -> None:
    values, scope = SCOPES[mode]
    role = render(values, at("router.epp.replicas", 2), at("picker.leaderElection", elects)).one("Role")
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    made = {(rule.group, rule.resource, verb) for rule in rules(scope, leader_election=elects) for verb in rule.verbs}
    assert allowed == made


# ------------------------------------------------------------------ what the picker is told


WAYS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a pool of the release": (PODS, (RELEASE,)),
    "beside Envoy": (STANDALONE, (NAME,)),
    "a leader": (merged(PODS, at("router.epp.replicas", 2)), (RELEASE,)),
    "a leader of pods found by labels": (merged(STANDALONE, at("router.epp.replicas", 2)), (NAME,)),
    "workers": (merged(STANDALONE, at("picker.workers", 4)), (NAME,)),
    "pools that exist": (
        at("router.inferencePool.existing", [{"name": "a", "port": 9012}, {"name": "b", "port": 9003}]),
        ("a", "b"),
    ),
    "addresses": (merged(at("router.proxy.enabled", True), at("picker.endpoints", ["10.0.0.1:8000"])), (RELEASE,)),
    "more": (
        merged(
            PODS,
            at("picker.kvEvents", {"port": 5557, "replayPort": 5558}),
            at("picker.policy", "learned"),
            at("picker.transport", "lean"),
            at("picker.tls.mode", "off"),
        ),
        (RELEASE,),
    ),
}


def understood(rendered: Rendered, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ServeOptions:
    """What `picker serve` makes of the container's arguments in its pod."""
    heard: list[ServeOptions] = []

    async def run(options: ServeOptions, *_: object) -> None:
        heard.append(options)

    monkeypatch.setattr(serve_command, "run_service", run)
    monkeypatch.setattr(serve_command, "supervise", run)
    for each in rendered.of("ConfigMap"):
        for name, text in each["data"].items():
            (folder / name).write_text(text)
    arguments = [each.replace("/etc/picker/config", str(folder)) for each in rendered.container("epp")["args"]]
    result = CliRunner().invoke(main, ["serve", *arguments], env={"POD_NAME": f"{NAME}-5d9c7b8f6-x2x4z"})
    assert result.exit_code == 0, result.output
    return heard[0]


@pytest.mark.parametrize("way", WAYS)
def test_picker_serve_understands_its_arguments(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, pools = WAYS[way]
    rendered = render(values)
    options = understood(rendered, tmp_path, monkeypatch)
    ports = {port["name"]: port["containerPort"] for port in rendered.container("epp")["ports"]}
    leases = [
        rule["resourceNames"] for role in rendered.of("Role") for rule in role["rules"] if "resourceNames" in rule
    ]
    assert tuple(pool.name for pool in options.pools) == pools
    assert options.namespace == NAMESPACE or not options.in_cluster
    assert (ports["grpc"], ports["grpc-health"], ports["metrics"]) == (
        options.grpc_port,
        options.grpc_health_port,
        options.metrics_port,
    )
    assert sum(name.startswith("grpc") for name in ports) == options.workers + 1
    assert leases == ([[options.lease]] if options.leader_election else [])
    assert options.secure_serving == (way in {"a pool of the release", "a leader", "pools that exist"})


def test_flags_of_the_peers_charts_come_last() -> None:
    arguments = render(PODS, at("router.epp.flags", {"v": 4, "secure-serving": False})).container("epp")["args"]
    assert arguments[-2:] == ["--secure-serving=false", "--v=4"]


def test_a_certificate_is_mounted_where_picker_is_told_to_look() -> None:
    rendered = render(PODS, at("picker.tls", {"mode": "cert-manager", "issuerRef": {"name": "ca"}}))
    (volume,) = [each for each in rendered.pod["volumes"] if each["name"] == "tls"]
    assert volume["secret"]["secretName"] == rendered.one("Certificate")["spec"]["secretName"] == f"{NAME}-tls"
    assert rendered.flags["cert-path"] == "/etc/picker/tls"


MINE = """# ours
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: random-policy}]
"""
CONFIGS: dict[str, dict[str, Any]] = {
    "none": {},
    "values": at(
        "router.epp.pluginsConfig",
        {
            "apiVersion": "llm-d.ai/v1alpha1",
            "kind": "EndpointPickerConfig",
            "plugins": [
                {"type": "least-request-policy"},
                {"type": "picker-settings", "parameters": {"maxBodyBytes": 2048}},
            ],
            "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "least-request-policy"}]}],
        },
    ),
    "text": merged(
        at("router.epp.pluginsConfigFile", "mine.yaml"),
        at("router.epp.pluginsCustomConfig", {"mine.yaml": MINE}),
    ),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_the_configuration_beside_envoy_is_one_that_picker_reads_with_one_destination(
    config: str, tmp_path: Path
) -> None:
    rendered = render(STANDALONE, CONFIGS[config])
    name = Path(rendered.flags["config-file"]).name
    file = tmp_path / name
    file.write_text(rendered.one("ConfigMap")["data"][name])
    read = load_config(file)
    assert read.settings.destinations == 1
    assert read.settings.response_path == "access-log"
    assert read.settings.max_body_bytes == (2048 if config == "values" else 10 * 1024 * 1024)


def test_a_configuration_for_a_gateway_is_passed_on_as_it_is() -> None:
    rendered = render(PODS, CONFIGS["text"])
    assert rendered.one("ConfigMap")["data"]["mine.yaml"] == MINE
    assert render(PODS).of("ConfigMap") == []


def test_a_changed_configuration_rolls_the_pods() -> None:
    def stamp(values: dict[str, Any]) -> str:
        template = render(PODS, values).one("Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert len({stamp(values) for values in CONFIGS.values()}) == 3


# ------------------------------------------------------------------ what gateways need


def test_istio_speaks_tls_to_a_certificate_that_nobody_signed() -> None:
    rule = render(PODS, at("provider.name", "istio")).one("DestinationRule")["spec"]
    assert rule["host"] == f"{NAME}.{NAMESPACE}.svc.cluster.local"
    assert rule["trafficPolicy"]["tls"] == {"mode": "SIMPLE", "insecureSkipVerify": True}


def test_istio_speaks_plain_text_to_a_picker_without_tls() -> None:
    rule = render(PODS, at("provider.name", "istio"), at("picker.tls.mode", "off")).one("DestinationRule")["spec"]
    assert rule["trafficPolicy"]["tls"] == {"mode": "DISABLE"}


def test_gke_asks_the_model_servers_for_their_health_on_their_port() -> None:
    rendered = render(PODS, at("provider.name", "gke"), at("router.modelServers.targetPorts", [{"number": 8001}]))
    check = rendered.one("HealthCheckPolicy")["spec"]
    assert check["default"]["config"]["httpHealthCheck"] == {"requestPath": "/health", "port": 8001}
    assert check["targetRef"]["name"] == rendered.one("InferencePool")["metadata"]["name"]


def test_a_route_on_gke_has_no_timeout_which_it_does_not_know() -> None:
    routes = {
        name: render(PODS, at("provider.name", name), at("httpRoute.create", True)).one("HTTPRoute")["spec"]["rules"][0]
        for name in ("gke", "none")
    }
    assert "timeouts" not in routes["gke"]
    assert routes["none"]["timeouts"] == {"request": "300s"}


# ------------------------------------------------------------------ what the installer reads


def test_the_notes_beside_envoy_lead_to_the_service() -> None:
    text = notes(STANDALONE)
    assert f"port-forward service/{NAME} 8081" in text
    assert "curl $URL/v1/chat/completions" in text


def test_the_notes_behind_a_gateway_lead_to_its_address() -> None:
    text = notes(PODS, at("httpRoute", {"create": True, "inferenceGatewayName": "front"}))
    assert "get gateway front" in text
    assert "No HTTPRoute" not in text
    assert "No HTTPRoute" in notes(PODS)


def test_the_notes_say_what_a_pool_that_exists_has_to_name() -> None:
    text = notes(at("router.inferencePool.existing", [{"name": "a", "port": 9012}, {"name": "b", "port": 9022}]))
    assert f"endpointPickerRef: {{name: {NAME}, port: {{number: 9022}}}}" in text


def test_the_notes_remind_of_labels_for_engines_that_are_not_vllm() -> None:
    assert "llm-d.ai/engine-type=sglang" in notes(PODS, at("router.modelServers.type", "sglang"))


def test_the_first_question_of_the_notes_is_one_that_an_engine_understands() -> None:
    body = notes(STANDALONE).split("-d '")[1].split("'")[0]
    assert yaml.safe_load(body)["messages"][0]["role"] == "user"
