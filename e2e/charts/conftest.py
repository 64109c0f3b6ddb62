"""The real helm and kubectl, and an API server for them. What cannot be fetched fails; nothing is skipped."""

import subprocess
from collections.abc import Iterator

import pytest
from api_servers import ROOT, Api, api_server
from cluster_tools import Space, new_space


@pytest.fixture(scope="session", autouse=True)
def kube_tools() -> None:
    done = subprocess.run(
        ["bash", ROOT / "e2e/tools/install.sh"], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def api(kube_tools: None) -> Iterator[Api]:
    """An API server that knows our custom resources."""
    with api_server() as server:
        space = Space(server, "default")
        space.kubectl("apply", "--server-side", "--force-conflicts", "-f", ROOT / "crds")
        space.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield server


@pytest.fixture
def space(api: Api) -> Iterator[Space]:
    """A namespace of the test's own."""
    with new_space(api) as fresh:
        yield fresh


def pytest_report_header() -> str:
    return "API server: kube-apiserver of KUBEBUILDER_ASSETS, else the kind cluster of e2e/kind, else tests/kube_fake"
