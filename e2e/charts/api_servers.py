"""An API server for helm and kubectl: a real kube-apiserver, a kind cluster, or the fake of tests/, whichever there is.

`KUBEBUILDER_ASSETS` names a folder with etcd and kube-apiserver (envtest's convention). A kind cluster counts when the
kubeconfig has the context that e2e/kind makes; no other context is ever touched.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".cache" / "kube-tools"
KIND_CONTEXT = "kind-picker"
PATIENCE_S = 60.0
TOKEN = "chart-test"


@dataclass(frozen=True, slots=True)
class Api:
    """An API server that answers. `name`: kube-apiserver, kind or fake."""

    name: str
    kubeconfig: Path


@contextlib.contextmanager
def api_server() -> Iterator[Api]:
    """The most real one that this machine offers, up as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="picker-charts-") as folder:
        home = Path(folder)
        if assets := os.environ.get("KUBEBUILDER_ASSETS"):
            server = _kube_apiserver(Path(assets), home)
        elif _kind_answers():
            server = _kind(home)
        else:
            server = _fake(home)
        with server as api:
            yield api


@contextlib.contextmanager
def _fake(home: Path) -> Iterator[Api]:
    argv = [sys.executable, "-m", "tests.kube_fake", "--kubeconfig", str(home / "kubeconfig")]
    with _process(argv, home / "fake.log"):
        yield _answering(Api("fake", home / "kubeconfig"), home)


@contextlib.contextmanager
def _kind(home: Path) -> Iterator[Api]:
    kubeconfig = home / "kubeconfig"
    kubeconfig.write_text(_kubectl("config", "view", "--raw", "--minify", "--flatten", "--context", KIND_CONTEXT))
    kubeconfig.chmod(0o600)
    yield Api("kind", kubeconfig)


@contextlib.contextmanager
def _kube_apiserver(assets: Path, home: Path) -> Iterator[Api]:
    store, peer, port = _free_ports(3)
    key = home / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=PATIENCE_S)
    (home / "tokens.csv").write_text(f"{TOKEN},{TOKEN},{TOKEN},system:masters\n")
    etcd = [
        f"{assets}/etcd",
        f"--data-dir={home}/etcd",
        f"--listen-client-urls=http://127.0.0.1:{store}",
        f"--advertise-client-urls=http://127.0.0.1:{store}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
    ]
    apiserver = [
        f"{assets}/kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{store}",
        f"--cert-dir={home}/certs",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--token-auth-file={home}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount",
        "--service-account-issuer=https://localhost",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]
    kubeconfig = home / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    named = {"name": "envtest"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": cluster}],
        "users": [{**named, "user": {"token": TOKEN}}],
        "contexts": [{**named, "context": {"cluster": "envtest", "user": "envtest", "namespace": "default"}}],
        "current-context": "envtest",
    }
    kubeconfig.write_text(yaml.safe_dump(config))
    with _process(etcd, home / "etcd.log"), _process(apiserver, home / "kube-apiserver.log"):
        yield _answering(Api("kube-apiserver", kubeconfig), home)


@contextlib.contextmanager
def _process(argv: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _answering(api: Api, home: Path) -> Api:
    """Wait until it does. Raises TimeoutError with what its processes logged."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if api.kubeconfig.exists() and _ready(api.kubeconfig):
            return api
        time.sleep(0.1)
    logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in home.glob("*.log"))
    raise TimeoutError(f"no answer from {api.name} within {PATIENCE_S:.0f} s\n{logs}")


def _ready(kubeconfig: Path) -> bool:
    with contextlib.suppress(subprocess.SubprocessError):
        return _kubectl("--kubeconfig", str(kubeconfig), "get", "--raw", "/readyz", "--request-timeout=3s") == "ok"
    return False


def _kind_answers() -> bool:
    with contextlib.suppress(subprocess.SubprocessError):
        return _kubectl("--context", KIND_CONTEXT, "get", "--raw", "/readyz", "--request-timeout=3s") == "ok"
    return False


def _kubectl(*words: str) -> str:
    done = subprocess.run([TOOLS / "kubectl", *words], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    return done.stdout


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
