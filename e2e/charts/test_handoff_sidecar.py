"""Hand-off proxies beside engines that the release does not own: the patch, and that all parts agree."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from api_servers import TOOLS
from chart_rendering import NAME, NAMESPACE, PODS, ROOT, STANDALONE, Manifest, Refused, Rendered, at, merged, render
from click.testing import CliRunner

from picker.server import handoff
from picker.server.cli import main
from picker.server.handoff import HandoffOptions

ENGINES = ROOT / "manifests" / "engines"
HANDOFF = merged(PODS, at("picker.handoff", {"enabled": True, "tokenSecret": "pool-token"}))


def patch_of(rendered: Rendered) -> str:
    (config,) = [each for each in rendered.of("ConfigMap") if each["metadata"]["name"] == f"{NAME}-handoff"]
    return str(config["data"]["patch.yaml"])


def patched(rendered: Rendered, deployment: Path, folder: Path) -> Manifest:
    """The Deployment with the proxy, as kubectl merges it."""
    file = folder / "patch.yaml"
    file.write_text(patch_of(rendered))
    done = subprocess.run(
        [TOOLS / "kubectl", "patch", "--local", "-f", deployment, "--patch-file", file, "-o", "yaml"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    made: Manifest = yaml.safe_load(done.stdout)
    return made


def proxy_of(deployment: Manifest) -> Manifest:
    (proxy,) = deployment["spec"]["template"]["spec"]["initContainers"]
    return dict(proxy)


@pytest.mark.parametrize("engine", sorted(ENGINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_patch_puts_a_proxy_beside_any_engine(engine: Path, tmp_path: Path) -> None:
    made = patched(render(HANDOFF), engine, tmp_path)
    before = yaml.safe_load(engine.read_text())["spec"]["template"]["spec"]
    after = made["spec"]["template"]["spec"]

    kubernetes_validate.validate(made, "1.35", strict=True)
    assert after["containers"] == before["containers"]
    assert {volume["name"] for volume in after["volumes"]} == {volume["name"] for volume in before["volumes"]} | {
        "handoff-token"
    }
    # Started before the engine, stopped after it.
    assert proxy_of(made)["restartPolicy"] == "Always"


def test_a_proxy_understands_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[HandoffOptions] = []

    async def serve(options: HandoffOptions, drain_s: float) -> None:
        heard.append(options)

    monkeypatch.setattr(handoff, "serve", serve)
    (tmp_path / "token").write_text("a secret that is long enough")
    values = merged(HANDOFF, at("picker.handoff", {"proxyArgs": ["--kv=pull"], "enginePort": 8300}))
    proxy = proxy_of(patched(render(values), ENGINES / "vllm-cpu.yaml", tmp_path))
    assert proxy["command"] == ["picker", "handoff"]
    assert [(each["name"], each["valueFrom"]["fieldRef"]["fieldPath"]) for each in proxy["env"]] == [
        ("POD_IP", "status.podIP")
    ]
    replaced = {"$(POD_IP)": "10.1.2.3", "/etc/picker/handoff": str(tmp_path)}
    arguments = list(proxy["args"])
    for text, by in replaced.items():
        arguments = [each.replace(text, by) for each in arguments]
    result = CliRunner().invoke(main, ["handoff", *arguments])

    assert result.exit_code == 0, result.output
    (options,) = heard
    # The name is the address that picker gives the pod's endpoint.
    assert (options.name, options.port, options.engine) == ("10.1.2.3:8000", 8000, "http://127.0.0.1:8300")
    assert (options.picker, options.pull) == (f"http://{NAME}-handoff.{NAMESPACE}.svc:9100", True)
    assert options.token == "a secret that is long enough"


def test_with_certificates_proxies_and_picker_speak_mutual_tls(tmp_path: Path) -> None:
    rendered = render(HANDOFF, at("picker.handoff", {"certSecret": "pool-certificates", "peerPort": 9443}))
    made = patched(rendered, ENGINES / "vllm-cpu.yaml", tmp_path)
    proxy, epp = proxy_of(made), rendered.container("epp")
    folder = "/etc/picker/handoff-tls"

    kubernetes_validate.validate(made, "1.35", strict=True)
    assert {f"--picker=https://{NAME}-handoff.{NAMESPACE}.svc:9100", "--peer-port=9443", f"--cert-dir={folder}"} <= set(
        proxy["args"]
    )
    told = {name: rendered.flags[f"handoff-{name}"] for name in ("cert-dir", "client-ca-file", "peer-port")}
    assert told == {"cert-dir": folder, "client-ca-file": f"{folder}/ca.crt", "peer-port": "9443"}
    for container, volumes in ((epp, rendered.pod["volumes"]), (proxy, made["spec"]["template"]["spec"]["volumes"])):
        assert {"name": "handoff-tls", "mountPath": folder, "readOnly": True} in container["volumeMounts"]
        (volume,) = [each for each in volumes if each["name"] == "handoff-tls"]
        assert volume["secret"]["secretName"] == "pool-certificates"


@pytest.mark.parametrize("values", [HANDOFF, merged(HANDOFF, STANDALONE)], ids=["behind a gateway", "beside Envoy"])
def test_picker_listens_where_proxies_ask_and_has_their_token(values: dict[str, Any], tmp_path: Path) -> None:
    rendered = render(values, at("picker.handoff.port", 9200))
    proxy = proxy_of(patched(rendered, ENGINES / "vllm-cpu.yaml", tmp_path))
    (service,) = [each for each in rendered.of("Service") if each["metadata"]["name"] == f"{NAME}-handoff"]
    epp = rendered.container("epp")

    assert f"--picker=http://{NAME}-handoff.{NAMESPACE}.svc:9200" in proxy["args"]
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(9200, "handoff")]
    assert {"name": "handoff", "containerPort": 9200} in epp["ports"]
    assert (rendered.flags["handoff-port"], rendered.flags["handoff-token-file"]) == (
        "9200",
        "/etc/picker/handoff/token",
    )
    mounts = [each for each in epp["volumeMounts"] + proxy["volumeMounts"] if each["name"] == "handoff-token"]
    assert [each["mountPath"] for each in mounts] == ["/etc/picker/handoff"] * 2
    patch = yaml.safe_load(patch_of(rendered))["spec"]["template"]["spec"]
    volumes = [each for each in rendered.pod["volumes"] + patch["volumes"] if each["name"] == "handoff-token"]
    assert [each["secret"]["secretName"] for each in volumes] == ["pool-token"] * 2


def test_a_proxy_may_do_no_more_than_picker() -> None:
    rendered = render(HANDOFF)
    (proxy,) = yaml.safe_load(patch_of(rendered))["spec"]["template"]["spec"]["initContainers"]

    assert proxy["securityContext"].items() >= rendered.container("epp")["securityContext"].items()
    assert proxy["securityContext"]["runAsNonRoot"] is True


def test_engines_reach_the_port_through_the_network_policy() -> None:
    policy = render(HANDOFF, at("picker.networkPolicy.enabled", True)).one("NetworkPolicy")
    (rule,) = [each for each in policy["spec"]["ingress"] if each["ports"] == [{"port": "handoff"}]]

    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "vllm"}}}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (at("picker.handoff.enabled", True), "picker.handoff.tokenSecret"),
        (
            merged(
                at("picker.handoff", {"enabled": True, "tokenSecret": "x"}),
                at("router.modelServers.targetPorts", [{"number": 8000}, {"number": 8001}]),
            ),
            "picker.handoff.enabled",
        ),
    ],
)
def test_values_that_make_no_pool_of_proxies_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        render(PODS, values)


def test_without_it_nothing_of_it_is_there() -> None:
    assert "handoff" not in yaml.safe_dump(list(render(PODS).manifests))
