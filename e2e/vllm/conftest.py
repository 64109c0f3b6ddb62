"""Real engines for the tests here. Where vLLM cannot be installed the run ends with status 69, neither 0 nor failed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from session import BLOCK_BYTES, PORTS, Session, serving

from picker.server.vllm_engine import VllmEngine, spread_cores
from picker.server.vllm_install import IMPOSSIBLE, CannotInstall, VllmInstall, ensure_vllm

SMALL_KV = 91 * BLOCK_BYTES
"""2,880 tokens: a hundred requests do not fit, so blocks are evicted all the time."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def install() -> VllmInstall:
    try:
        return await ensure_vllm(("smollm2", "tiny"))
    except CannotInstall as reason:
        pytest.exit(f"not run: vLLM cannot be installed here\n{reason}", returncode=IMPOSSIBLE)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(install: VllmInstall) -> AsyncIterator[Session]:
    """A real model with a small cache, on the core that the system uses least."""
    (core,) = spread_cores(1)
    port, events, replay = PORTS[:3]
    spec = VllmEngine(
        install.model("smollm2"), port, events, replay, core=core, max_model_len=2048, kv_bytes=SMALL_KV, dev_mode=True
    )
    async with serving(spec, install.venv, "e2e-smollm2") as session:
        yield session
