"""The scripts of e2e/kind from beginning to end, with stand-ins for docker, kind, kubectl, helm, go and curl.

Every step is taken, in order, and against the one cluster. What a real cluster answers is not known from this.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_servers import ROOT, TOOLS

KIND = ROOT / "e2e" / "kind"
ANSWERS = """
[ ! -p /dev/stdin ] || cat >/dev/null
case "$*" in
  *allocatable*) echo 1 ;;
  *inferencepool*jsonpath*) echo True ;;
  *"get nodes -l nvidia.com/gpu.present=true"*) echo node/picker-worker2 ;;
  *nvidia-smi*-L*) echo "GPU 0: NVIDIA H200" ;;
  *"network inspect kind"*) echo "fc00:f853:ccd:e793::/64 172.18.0.0/16 " ;;
  *port-forward*) exec sleep 60 ;;
esac
"""
BASE = "image: registry.k8s.io/gateway-api-inference-extension/epp:v1.6.1\nimagePullPolicy: Always\n"


@dataclass(frozen=True)
class Stage:
    """A folder of stand-ins that write down their calls."""

    folder: Path

    def run(self, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder}:{TOOLS}:{os.environ['PATH']}"
        argv = ["bash", str(KIND / script), *words]
        whole = {**os.environ, "PATH": path, "PYTHON": "python3", **env}
        quiet = subprocess.DEVNULL
        return subprocess.run(argv, env=whole, stdin=quiet, capture_output=True, text=True, check=False, timeout=100)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def stage(tmp_path: Path, kube_tools: None) -> Stage:
    for name in ("docker", "kind", "kubectl", "helm", "go", "curl", "nvidia-smi", "git"):
        script = tmp_path / name
        script.write_text(f'#!/bin/bash\necho "{name} $*" >>"{tmp_path}/calls"{ANSWERS}')
        script.chmod(0o755)
    return Stage(tmp_path)


def at(calls: list[str], words: str) -> int:
    """Where the first call with these words is."""
    return next(place for place, call in enumerate(calls) if words in call)


@pytest.mark.parametrize(
    ("engines", "config", "manifest"),
    [
        ("simulated", "cluster.yaml", "simulated.yaml"),
        ("cpu", "cluster.yaml", "vllm-cpu.yaml"),
        ("gpu", "cluster-gpu.yaml", "vllm-nvidia.yaml"),
        ("", "cluster-gpu.yaml", "vllm-nvidia.yaml"),
    ],
)
def test_the_cluster_comes_up_step_by_step(stage: Stage, engines: str, config: str, manifest: str) -> None:
    told = stage.run("up.sh", *filter(None, [engines]))
    assert told.returncode == 0, told.stderr
    calls = stage.calls
    order = [config, "standard-install.yaml", "upgrade --install istiod", "docker build", "kind load", manifest]
    order += ["upgrade --install chat", "gateway.yaml", "get inferencepool chat"]
    places = [at(calls, words) for words in order]
    assert places == sorted(places)
    assert ("nvidia-device-plugin" in " ".join(calls)) is (manifest == "vllm-nvidia.yaml")
    for call in calls:
        assert not call.startswith("kubectl") or call.startswith("kubectl --context kind-picker ")
        assert not call.startswith("helm") or call.startswith("helm --kube-context kind-picker ")


def test_the_suite_runs_against_the_gateway_of_the_cluster(stage: Stage) -> None:
    told = stage.run("suite.sh", "--collect-only")
    assert told.returncode == 0, told.stderr
    forwarded, asked = sorted(stage.calls, reverse=True)
    assert forwarded.endswith("-n inference port-forward service/inference-gateway-istio 18080:80")
    assert asked.endswith("http://127.0.0.1:18080/v1/models")
    assert "test_a_chat_is_answered" in told.stdout
    assert "test_texts_are_embedded" not in told.stdout


def test_the_conformance_suite_runs_with_our_image(stage: Stage, tmp_path: Path) -> None:
    upstream = ROOT / ".cache" / "kind" / "gateway-api-inference-extension-v0.0.0-test"
    base = upstream / "conformance" / "resources" / "base.yaml"
    base.parent.mkdir(parents=True, exist_ok=True)
    base.write_text(BASE)
    (upstream / "conformance" / "go.mod").write_text("module conformance\n")
    told = stage.run("conformance.sh", "InferencePoolAccepted", INFERENCE_EXTENSION_VERSION="v0.0.0-test")
    assert told.returncode == 0, told.stderr
    assert base.read_text() == "image: picker:0.1.0\nimagePullPolicy: IfNotPresent\n"
    (test,) = [call for call in stage.calls if call.startswith("go test")]
    assert "-args -gateway-class istio" in test
    assert "-run-test InferencePoolAccepted" in test


def test_the_cluster_goes_when_told(stage: Stage) -> None:
    assert stage.run("down.sh").returncode == 0
    assert stage.calls == ["kind delete cluster --name picker"]
