"""Real vLLM engines on CPU as child processes: what to start them with, when they are ready, which core they run on."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil

from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import EngineAddress, Stack, StackError
from picker.server.vllm_install import InstallError, ensure_vllm

READY_S = 900.0
POLL_S = 0.2
MODEL = "smollm2"
TRACE_SCALE = 1 / 32
"""For the lengths of a data-centre trace: the longest prompt then fits the context, the mean takes half a second."""


@dataclass(frozen=True, slots=True)
class VllmEngine:
    """One engine. `kv_bytes` is its KV cache (23 kB per token of SmolLM2-135M), `max_model_len` its context in tokens.

    `core`: the one CPU that all its processes run on; None leaves it to the system.
    `nixl_port`: side channel of the NIXL connector, by which engines pull KV from each other; None: no connector.
    `dev_mode` opens /reset_prefix_cache, /sleep and the like, for tests.
    """

    model: Path
    port: int
    kv_events_port: int
    kv_replay_port: int
    served_name: str = MODEL
    core: int | None = None
    max_model_len: int = 8192
    block_size: int = 32
    max_num_seqs: int = 8
    kv_bytes: int = 256 << 20
    nixl_port: int | None = None
    dev_mode: bool = False
    dtype: str = "bfloat16"

    @property
    def address(self) -> EngineAddress:
        """Where clients, the scraper and the KV-event subscriber find it."""
        return EngineAddress(
            f"{HOST}:{self.port}", f"tcp://{HOST}:{self.kv_events_port}", f"tcp://{HOST}:{self.kv_replay_port}"
        )

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def argv(engine: VllmEngine, venv: Path) -> list[str]:
    """The engine's command line. One executor process less than vLLM's default, which saves 0.4 GB."""
    options: dict[str, str] = {
        "host": HOST,
        "port": str(engine.port),
        "served-model-name": engine.served_name,
        "dtype": engine.dtype,
        "max-model-len": str(engine.max_model_len),
        "max-num-seqs": str(engine.max_num_seqs),
        "max-num-batched-tokens": "512",
        "block-size": str(engine.block_size),
        "kv-cache-memory-bytes": str(engine.kv_bytes),
        "distributed-executor-backend": "uni",
        "prefix-caching-hash-algo": "sha256_cbor",
        "kv-events-config": _json(
            enable_kv_cache_events=True,
            publisher="zmq",
            # vLLM binds only a wildcard address; to any other it would connect.
            endpoint=f"tcp://*:{engine.kv_events_port}",
            replay_endpoint=f"tcp://{HOST}:{engine.kv_replay_port}",
            topic=f"kv@{HOST}:{engine.port}@{engine.served_name}",
        ),
    }
    if engine.nixl_port is not None:
        options["kv-transfer-config"] = _json(
            kv_connector="NixlConnector",
            kv_role="kv_both",
            kv_buffer_device="cpu",
            # By default a pull from an engine that has died fails the request.
            kv_load_failure_policy="recompute",
        )
    flags = ("--enforce-eager", "--enable-prompt-tokens-details", "--enable-force-include-usage")
    pairs = (word for name, value in options.items() for word in (f"--{name}", value))
    return [str(venv / "bin" / "vllm"), "serve", str(engine.model), *pairs, *flags]


def environment(engine: VllmEngine) -> dict[str, str]:
    """What the engine's environment has beside ours: nothing is asked of a network, and nothing told to one."""
    env = {
        "VLLM_CPU_CI_ENV": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_HOST_IP": HOST,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if engine.core is not None:
        env["VLLM_CPU_OMP_THREADS_BIND"] = str(engine.core)
    if engine.dev_mode:
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if engine.nixl_port is not None:
        env |= {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": HOST,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(engine.nixl_port),
            "UCX_TLS": "tcp,shm,self,cma",
            "UCX_NET_DEVICES": "lo",
        }
    return env


def spread_cores(count: int) -> list[int | None]:
    """A core for each of `count` engines, last core first, since the first is where the system's own work gathers."""
    cores = sorted(os.sched_getaffinity(0), reverse=True)
    return [cores[i % len(cores)] for i in range(count)]


async def start(engine: VllmEngine, venv: Path, children: Children, name: str) -> Child:
    """Start the engine's process group, on its core from the first thread on. Returns at once; see `wait_ready`."""
    child = await children.start(name, argv(engine, venv), environment(engine))
    pin(child.pid, engine.core)
    return child


async def wait_ready(engine: VllmEngine, child: Child, timeout_s: float = READY_S) -> None:
    """Return when the engine has answered /health, one completion and one chat: the first ones are many times slower.

    Raises StackError when it ends or is not ready in time.
    """
    try:
        async with asyncio.timeout(timeout_s), aiohttp.ClientSession(engine.url) as session:
            while not await _healthy(session):
                if not child.running:
                    raise StackError(f"{child.name} ended with {child.process.returncode}:\n{child.tail()}")
                await asyncio.sleep(POLL_S)
            pin(child.pid, engine.core)  # the NIXL connector moves its process to a core of its own choice
            asked = {"model": engine.served_name, "max_tokens": 2}
            for path, prompt in (
                ("/v1/completions", {"prompt": "Hello"}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]}),
            ):
                async with session.post(path, json=asked | prompt, raise_for_status=True) as response:
                    await response.read()
    except TimeoutError:
        raise StackError(f"{child.name} was not ready after {timeout_s:.0f} s:\n{child.tail()}") from None
    except aiohttp.ClientError as error:
        raise StackError(f"{child.name} does not answer ({error}):\n{child.tail()}") from error


async def _healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False  # not listening yet


def pin(pid: int, core: int | None) -> None:
    """Put every thread of the process and its children on one core; those that they start later inherit it."""
    if core is None:
        return
    try:
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, {core})
    except (psutil.Error, OSError):
        return  # it is gone: whoever waits for it says so


async def start_vllm(stack: Stack, count: int, say: Callable[[str], None] = print) -> None:
    """Install what is missing, start `count` engines, and add them to the stack when all are ready.

    Each takes 1.9 GB of memory and about 35 s of one core to start. Raises StackError.
    """
    try:
        install = await ensure_vllm((MODEL,), say=say)
    except InstallError as error:
        raise StackError(str(error)) from error
    ports = iter(free_ports(3 * count))
    engines = [
        VllmEngine(install.model(MODEL), next(ports), next(ports), next(ports), core=core)
        for core in spread_cores(count)
    ]
    started = [await start(engine, install.venv, stack.children, f"vllm-{i}") for i, engine in enumerate(engines)]
    await asyncio.gather(*(wait_ready(engine, child) for engine, child in zip(engines, started, strict=True)))
    stack.engines.extend(engine.address for engine in engines)
    stack.processes |= {engine.address.address: child for engine, child in zip(engines, started, strict=True)}
    stack.model, stack.trace_scale = MODEL, TRACE_SCALE
    stack.models[MODEL] = str(install.model(MODEL))


def _json(**fields: Any) -> str:
    return msgspec.json.encode(fields).decode()
