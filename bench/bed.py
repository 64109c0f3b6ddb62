"""The test bed: backends, picker behind Envoy in every way that is measured, and the peers, all up and warm at once.

Everything stays up for the whole run, so that rounds can alternate between targets and a slow minute of the machine
falls on all of them alike.
"""

import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from bench.backends import HOST
from bench.load import Target, until_serving
from bench.peers import PEERS
from bench.prompts import chat_requests
from picker.server.envoy import EnvoySpec, ResponsePath, bootstrap
from picker.server.processes import Child, Children
from picker.server.transport import Transport
from picker.server.up.ports import free_ports
from picker.server.up.stack import EngineAddress, Stack, envoy_binary

FEW, MANY = 4, 64
"""Endpoints of a pool."""
PATHS: dict[str, ResponsePath] = {"none": "access-log", "duplex": "echo"}
"""Request bodies in full duplex, and what Envoy sends of the answer: nothing but its log, or all of it."""
LEARNED = {"learned": FEW, "learned_64": MANY}
"""As "none", by the policy that learns, whose trainer is a child of the process and billed with it; over so many
endpoints."""
DIRECT = "direct"
"""An Envoy in front of the same backends, without a picker."""
LEAN = "lean_"
"""Before the name of a target: the same by the transport `lean`; without it, by `grpcio`."""
IN_TURN = f"{LEAN}in_turn"
"""As `lean_none`, but what stands beside Envoy names endpoints in turn, and does nothing else (`bench/in_turn.py`)."""


@dataclass(frozen=True, slots=True)
class Ours:
    """A picker to measure."""

    path: ResponsePath
    policy: str = "multiplicative"
    endpoints: int = FEW
    transport: Transport = "grpcio"


_BY_GRPCIO = {
    **{name: Ours(path) for name, path in PATHS.items()},
    **{name: Ours(PATHS["none"], "learned", endpoints) for name, endpoints in LEARNED.items()},
}
OURS: dict[str, Ours] = {
    **_BY_GRPCIO,
    **{LEAN + name: replace(ours, transport="lean") for name, ours in _BY_GRPCIO.items()},
}
"""Our targets by name."""


@contextlib.asynccontextmanager
async def bed(names: Collection[str]) -> AsyncIterator[dict[str, Target]]:
    """The named targets (keys of OURS, names of PEERS), serving. A peer that is not installed is left out.

    Raises StackError, TimeoutError or OSError when one does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        children = Children(Path(folder) / "logs")
        try:
            backends = await _backends(children)
            targets: dict[str, Target] = {}
            for name, ours in OURS.items():
                if name in names:
                    targets[name] = await _picker(name, ours, children, Path(folder) / name, backends)
            if IN_TURN in names:
                targets[IN_TURN] = await _in_turn(children, Path(folder) / IN_TURN, backends[:FEW])
            if DIRECT in names:
                targets[DIRECT] = await _direct(children, Path(folder), backends[:FEW])
            for peer in PEERS:
                if peer.name in names and peer.version is not None:
                    targets[peer.name] = await peer.start(children, backends[:FEW])
            probe = chat_requests(1, 512, seed=0)[0]
            for target in targets.values():
                await until_serving(target, probe)
            yield targets
        finally:
            await children.stop()


async def _backends(children: Children) -> list[str]:
    ports = free_ports(MANY)
    child = await children.start("backends", [sys.executable, "-m", "bench.backends", *map(str, ports)])
    for port in ports:
        await until_serving(Target("backends", port, child.pid), chat_requests(1, 512, seed=0)[0])
    return [f"{HOST}:{port}" for port in ports]


async def _picker(name: str, ours: Ours, children: Children, folder: Path, backends: list[str]) -> Target:
    folder.mkdir()
    endpoints = backends[: ours.endpoints]
    stack = Stack(children, folder, engines=[EngineAddress(address) for address in endpoints])
    argv = ["--log-level", "warning", "--seed", "0", "--policy", ours.policy, "--transport", ours.transport]
    await stack.start_picker(argv=argv)
    assert stack.picker is not None  # just started
    return await _behind_envoy(name, stack.picker, stack.grpc_port, ours.path, endpoints, children, folder)


async def _in_turn(children: Children, folder: Path, backends: list[str]) -> Target:
    folder.mkdir()
    (port,) = free_ports(1)
    least = await children.start(IN_TURN, [sys.executable, "-m", "bench.in_turn", str(port), *backends])
    return await _behind_envoy(IN_TURN, least, port, PATHS["none"], backends, children, folder)


async def _behind_envoy(
    name: str, picker: Child, port: int, path: ResponsePath, endpoints: list[str], children: Children, folder: Path
) -> Target:
    listener, admin = free_ports(2)
    spec = EnvoySpec(listener, admin, (port,), endpoints=tuple(endpoints), response_path=path)
    envoy = await _envoy(name, bootstrap(spec), children, folder)
    return Target(name, spec.listener_port, picker.pid, envoy.pid, f"http://{HOST}:{spec.admin_port}")


async def _direct(children: Children, folder: Path, backends: list[str]) -> Target:
    """Listener and pool alone: no filter but the router, no log, no word from a picker."""
    # Nobody listens on the picker's port, nor asks.
    listener, admin = free_ports(2)
    spec = EnvoySpec(listener, admin, (1,), endpoints=tuple(backends), response_path="echo")
    config = bootstrap(spec)
    resources = config["static_resources"]
    (filters,) = resources["listeners"][0]["filter_chains"]
    filters["filters"][0]["typed_config"]["http_filters"] = filters["filters"][0]["typed_config"]["http_filters"][-1:]
    resources["clusters"] = resources["clusters"][1:]
    envoy = await _envoy(DIRECT, config, children, folder)
    return Target(DIRECT, spec.listener_port, envoy.pid)


async def _envoy(name: str, config: dict[str, Any], children: Children, folder: Path) -> Child:
    file = folder / f"envoy-{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    argv = [envoy_binary(), "-c", str(file), "--concurrency", "1", "-l", "warning", "--disable-hot-restart"]
    return await children.start(f"envoy-{name}", argv)
