"""A Kubernetes API server for tests, honest as far as it goes: real kubectl, helm and client libraries work against it.

    async with fake_api_server() as fake:
        fake.kubeconfig(path)                       # for kubectl, helm, kubernetes.aio
        fake.cluster.put(pod)                       # stored as it is, status and all
        fake.cluster.store.compact()                # watches from older versions get 410
        fake.cut_watches(), await fake.down(), await fake.up()

`python -m tests.kube_fake --port 8001 --kubeconfig FILE` runs one.
"""

from .cluster import Cluster, How
from .errors import ApiError
from .server import Call, FakeApiServer, fake_api_server

__all__ = ["ApiError", "Call", "Cluster", "FakeApiServer", "How", "fake_api_server"]
