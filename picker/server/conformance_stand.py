"""What the conformance pack needs around an EPP: a picker of our own if none is given, and Envoy with echo servers."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from picker.conformance.echo import echo_app
from picker.conformance.through_envoy import WEIGHTS, Gateway
from picker.server.config_schema import API_VERSION, KIND, TESTING
from picker.server.conformance_envoy import add_endpoints, side_by_side, weigh
from picker.server.envoy import EnvoySpec
from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports, free_run
from picker.server.up.stack import command, envoy_binary, until_ok

PODS = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
DEAD_POD = "127.0.0.19"
OTHER_PODS = ("127.0.0.21", "127.0.0.22", "127.0.0.23")
PORTS = 3
"""Ports of each pod, as with three data parallel ranks."""


@dataclass(frozen=True, slots=True)
class Target:
    """An EPP to ask: `address` is `host:port`, `endpoints` those of its pool, `dead` one more where nobody listens,
    `tls` how it is spoken to."""

    address: str
    endpoints: tuple[str, ...]
    tls: bool = True
    dead: str = ""

    @property
    def pool(self) -> tuple[str, ...]:
        """All endpoints, the dead one too."""
        return (*self.endpoints, self.dead) if self.dead else self.endpoints

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """Raises ValueError for an address without a port."""
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class UnderTest:
    """The EPP of a pool, those of a second and of an empty pool if there are any, and where its health is asked.

    `testing`: the plugins for conformance tests are on. `model`: one that is let pass unchanged.
    """

    first: Target
    second: Target | None = None
    empty: Target | None = None
    health: str = ""
    testing: bool = False
    model: str = "conformance"


async def start_picker(children: Children, folder: Path) -> UnderTest:
    """`picker serve` of three pools, with TLS and the plugins for conformance tests. Raises StackError, OSError."""
    ports, (common, one, two, three, health, metrics, admin) = free_run(PORTS), free_ports(7)
    ours = tuple(f"{ip}:{port}" for ip in PODS for port in range(ports, ports + PORTS))
    targets = {
        "first": Target(f"{HOST}:{one}", ours, dead=f"{DEAD_POD}:{ports}"),
        "second": Target(f"{HOST}:{two}", tuple(f"{ip}:{ports}" for ip in OTHER_PODS)),
        "empty": Target(f"{HOST}:{three}", ()),
    }
    names = ",".join(f"{name}:{target.port}" for name, target in targets.items())
    for name, target in targets.items():
        listed = {"endpoints": [{"address": each} for each in target.pool]}
        (folder / f"{name}.json").write_text(json.dumps(listed))
    config = folder / "picker.yaml"
    plugins = [{"type": kind} for kind in TESTING]
    config.write_text(yaml.safe_dump({"apiVersion": API_VERSION, "kind": KIND, "plugins": plugins}))
    child = await children.start(
        "picker",
        [
            *command("serve"),
            *("--host", HOST, "--grpc-port", str(common), "--grpc-health-port", str(health)),
            *("--metrics-port", str(metrics), "--admin-port", str(admin), "--config-file", str(config)),
            *("--pool-name", names, "--endpoints-file", str(folder / "{pool}.json"), "--drain-timeout", "1s"),
        ],
    )
    await until_ok(f"http://{HOST}:{admin}/pool", child)
    first, second, empty = targets.values()
    return UnderTest(first, second, empty, health=f"{HOST}:{health}", testing=True)


@contextlib.asynccontextmanager
async def gateways(children: Children, folder: Path, under_test: UnderTest) -> AsyncIterator[Gateway]:
    """Envoy before these EPPs, echo servers at their endpoints. Raises StackError, OSError."""
    first, second = under_test.first, under_test.second
    names = ("http", "h2c", "open-duplex", "open-buffered", "closed", "weighted", "second")
    *listeners, admin, nobody = free_ports(len(names) + 2)
    urls = {name: f"http://{HOST}:{port}" for name, port in zip(names, listeners, strict=True)}
    away = Target(f"{HOST}:{nobody}", first.endpoints, tls=False)

    def spec(name: str, target: Target, fail_open: bool = False) -> EnvoySpec:
        return EnvoySpec(
            listener_port=listeners[names.index(name)],
            admin_port=admin,
            picker_host=target.host,
            picker_ports=(target.port,),
            endpoints=target.pool,
            response_path="echo",
            request_mode="buffered" if name == "open-buffered" else "full-duplex",
            tls=target.tls,
            fail_open=fail_open,
        )

    specs = {
        # Failing open, so that an EPP's error is not mistaken for an answer of its own.
        "http": spec("http", first, fail_open=True),
        "h2c": spec("h2c", first),
        "open-duplex": spec("open-duplex", away, fail_open=True),
        "open-buffered": spec("open-buffered", away, fail_open=True),
        "closed": spec("closed", away),
    }
    if second is not None:
        specs |= {"weighted": spec("weighted", first), "second": spec("second", second)}
    node = side_by_side(specs, h2c=["h2c"])
    if second is not None:
        weigh(node, "weighted", "second", WEIGHTS)
    async with _echo_server() as echo_port, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        add_endpoints(node, (*first.endpoints, *(second.endpoints if second else ())), echo_port)
        await _start_envoy(children, folder, yaml.safe_dump(node, sort_keys=False), f"http://{HOST}:{admin}/ready")
        yield Gateway(
            session=session,
            endpoints=first.endpoints,
            http=urls["http"],
            h2c=urls["h2c"],
            open_duplex=urls["open-duplex"],
            open_buffered=urls["open-buffered"],
            closed=urls["closed"],
            dead=first.dead,
            weighted=urls["weighted"] if second else None,
            second=second.endpoints if second else (),
            model=under_test.model,
            testing=under_test.testing,
        )


async def _start_envoy(children: Children, folder: Path, config: str, ready: str) -> Child:
    file = folder / "envoy.yaml"
    file.write_text(config)
    argv = [envoy_binary(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    child = await children.start("envoy", [*argv, "--component-log-level", "misc:error"])
    await until_ok(ready, child)
    return child


@contextlib.asynccontextmanager
async def _echo_server() -> AsyncIterator[int]:
    """The port of an echo server on loopback."""
    runner = web.AppRunner(echo_app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
