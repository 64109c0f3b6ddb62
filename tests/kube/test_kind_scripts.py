"""The scripts of e2e/kind, as far as they go without Docker: they are sound, their steps end, and failures say why."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KIND = ROOT / "e2e" / "kind"
SCRIPTS = sorted((ROOT / "e2e").rglob("*.sh"))
PICKERS = """\
      - image: registry.k8s.io/gateway-api-inference-extension/epp:v1.4.0
        imagePullPolicy: Always
      - image: gcr.io/k8s-staging-gateway-api/echo-basic:v1
      - image: registry.k8s.io/gateway-api-inference-extension/lwepp:v1.6.1 """


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of commands that stand in for the cluster's: each writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("kubectl", "docker", "kind", "helm"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        script.chmod(0o755)
    return folder


def sourced(tools: Path, lines: str, script: str = "lib.sh") -> subprocess.CompletedProcess[str]:
    """Bash that has read a script and then runs these lines; the stand-ins come before any real command."""
    program = f'set -euo pipefail\nsource "{KIND / script}"\nPATH={tools}:$PATH\n{lines}'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, timeout=60)


def alive(pid: int) -> bool:
    """Whether a process goes on; one that nobody has waited for does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        psutil.wait_procs([process], timeout=3)
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    argv: list[str | Path] = [
        Path(sys.executable).parent / "shellcheck",
        "--external-sources",
        "--severity=warning",
        script,
    ]
    found = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert found.returncode == 0, found.stdout


def test_a_step_that_succeeds_lets_the_next_one_run(tools: Path) -> None:
    told = sourced(tools, 'step 9 "first" true\nstep 9 "second" echo here')
    assert told.returncode == 0
    assert told.stdout.index("first") < told.stdout.index("second") < told.stdout.index("here")


def test_a_step_that_fails_ends_all_and_shows_the_cluster(tools: Path) -> None:
    told = sourced(tools, 'broken() { false; echo went on; }\nstep 9 "break" broken\necho next')
    assert told.returncode == 1
    assert "FAILED: break: exit status 1" in told.stderr
    assert "next" not in told.stdout
    assert "went on" not in told.stdout
    calls = (tools.parent / "calls").read_text()
    assert "kubectl --context kind-picker get nodes" in calls
    assert "kubectl --context kind-picker get events" in calls


def test_a_step_that_hangs_is_ended_with_all_its_children(tools: Path) -> None:
    told = sourced(tools, f'hang() {{ sh -c "echo \\$\\$ >{tools}/pid; exec sleep 300"; }}\nstep 4 "hang" hang')
    assert told.returncode == 1
    assert "FAILED: hang: not done after 4 s" in told.stderr
    assert not alive(int((tools / "pid").read_text()))


def test_no_context_but_the_clusters_own_is_ever_used(tools: Path) -> None:
    sourced(tools, "k get pods\nh list")
    calls = (tools.parent / "calls").read_text().splitlines()
    assert calls == ["kubectl --context kind-picker get pods", "helm --kube-context kind-picker list"]


def test_without_docker_it_says_so(tools: Path) -> None:
    (tools / "docker").write_text("#!/bin/sh\nexit 1\n")
    argv: list[str | Path] = ["bash", KIND / "up.sh", "simulated"]
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    told = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)
    assert (told.returncode, "docker does not answer" in told.stderr) == (69, True)


def swap(tools: Path, manifest: Path) -> subprocess.CompletedProcess[str]:
    text = (KIND / "conformance.sh").read_text()
    function = text[text.index("put_picker_in() {") : text.index("# The suite waits")]
    return sourced(tools, f"base={manifest}\n{function}\nput_picker_in")


def test_the_conformance_suite_gets_our_image_and_keeps_its_own_echo_server(tools: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "base.yaml"
    manifest.write_text(PICKERS)
    assert swap(tools, manifest).returncode == 0
    images = [line.split()[-1] for line in manifest.read_text().splitlines() if "image:" in line]
    assert images == ["picker:0.1.0", "gcr.io/k8s-staging-gateway-api/echo-basic:v1", "picker:0.1.0"]
    assert "Always" not in manifest.read_text()


def test_a_conformance_suite_without_known_pickers_is_refused(tools: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "base.yaml"
    manifest.write_text("image: elsewhere/epp:v9\n")
    told = swap(tools, manifest)
    assert told.returncode == 1
    assert "names 0 endpoint pickers" in told.stderr


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-gpu.yaml"])
def test_a_cluster_has_nodes_for_engines(name: str) -> None:
    cluster = yaml.safe_load((KIND / name).read_text())
    assert (cluster["kind"], cluster["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker"]
    marked = [node for node in cluster["nodes"] if node.get("labels", {}).get("nvidia.com/gpu.present") == "true"]
    mounts = [mount["containerPath"] for node in marked for mount in node["extraMounts"]]
    assert mounts == (["/var/run/nvidia-container-devices/all"] if "gpu" in name else [])
