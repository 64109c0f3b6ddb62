"""The test bed: backends, picker behind Envoy on two response paths, and the peers, all up and warm at once.

Everything stays up for the whole run, so that rounds can alternate between targets and a slow minute of the machine
falls on all of them alike.
"""

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import yaml

from bench.backends import HOST
from bench.load import Target, until_serving
from bench.peers import PEERS
from bench.prompts import chat_requests
from picker.server.envoy import EnvoySpec, ResponsePath, bootstrap
from picker.server.processes import Children
from picker.server.up.ports import free_ports
from picker.server.up.stack import EngineAddress, Stack, envoy_binary

BACKENDS = 4
PATHS: dict[str, ResponsePath] = {"none": "access-log", "duplex": "echo"}
"""Our targets: request bodies in full duplex, and what Envoy sends of the answer: nothing but its log, or all of it."""
LEARNED = "learned"
"""As "none", by the policy that learns, whose trainer is a child of the process and billed with it."""


@contextlib.asynccontextmanager
async def bed(names: Collection[str]) -> AsyncIterator[dict[str, Target]]:
    """The named targets (keys of PATHS, LEARNED, names of PEERS), serving. A peer that is not installed is left out.

    Raises StackError, TimeoutError or OSError when one does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        children = Children(Path(folder) / "logs")
        try:
            backends = await _backends(children)
            targets: dict[str, Target] = {}
            for name, path, policy in (
                *((name, path, "multiplicative") for name, path in PATHS.items()),
                (LEARNED, PATHS["none"], "learned"),
            ):
                if name in names:
                    targets[name] = await _picker(name, path, policy, children, Path(folder) / name, backends)
            for peer in PEERS:
                if peer.name in names and peer.version is not None:
                    targets[peer.name] = await peer.start(children, backends)
            probe = chat_requests(1, 512, seed=0)[0]
            for target in targets.values():
                await until_serving(target, probe)
            yield targets
        finally:
            await children.stop()


async def _backends(children: Children) -> list[str]:
    ports = free_ports(BACKENDS)
    child = await children.start("backends", [sys.executable, "-m", "bench.backends", *map(str, ports)])
    for port in ports:
        await until_serving(Target("backends", port, child.pid), chat_requests(1, 512, seed=0)[0])
    return [f"{HOST}:{port}" for port in ports]


async def _picker(
    name: str, path: ResponsePath, policy: str, children: Children, folder: Path, backends: list[str]
) -> Target:
    folder.mkdir()
    stack = Stack(children, folder, engines=[EngineAddress(address) for address in backends])
    await stack.start_picker(argv=["--log-level", "warning", "--seed", "0", "--policy", policy])
    assert stack.picker is not None  # just started
    port, admin = free_ports(2)
    spec = EnvoySpec(port, admin, (stack.grpc_port,), endpoints=tuple(backends), response_path=path)
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap(spec)))
    # A base id of its own: several Envoys run here at once.
    argv = [envoy_binary(), "-c", str(file), "--concurrency", "1", "-l", "warning", "--use-dynamic-base-id"]
    envoy = await children.start(f"envoy-{name}", argv)
    return Target(name, port, stack.picker.pid, envoy.pid, f"http://{HOST}:{admin}")
