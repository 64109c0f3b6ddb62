"""The command line and environment of a real engine, without starting one."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from picker.server import vllm_install
from picker.server.vllm_engine import VllmEngine, argv, environment, pin, spread_cores
from picker.server.vllm_install import CannotInstall, InstallError, VllmInstall, ensure_vllm

ENGINE = VllmEngine(Path("/models/m"), 8000, 5600, 5700, served_name="m", core=1)


def option(engine: VllmEngine, name: str) -> str:
    words = argv(engine, Path("/venv"))
    return words[words.index(f"--{name}") + 1]


def test_the_command_serves_the_model_on_loopback() -> None:
    assert argv(ENGINE, Path("/venv"))[:3] == ["/venv/bin/vllm", "serve", "/models/m"]
    assert (option(ENGINE, "host"), option(ENGINE, "port")) == ("127.0.0.1", "8000")


def test_kv_events_are_published_where_the_address_says() -> None:
    config = msgspec.json.decode(option(ENGINE, "kv-events-config"))
    assert config["endpoint"] == "tcp://*:5600"
    assert config["topic"] == "kv@127.0.0.1:8000@m"
    assert ENGINE.address.kv_events == "tcp://127.0.0.1:5600"
    assert ENGINE.address.kv_replay == config["replay_endpoint"] == "tcp://127.0.0.1:5700"


def test_no_connector_and_no_development_endpoints_unless_asked_for() -> None:
    assert "--kv-transfer-config" not in argv(ENGINE, Path("/venv"))
    assert "VLLM_SERVER_DEV_MODE" not in environment(ENGINE)


def test_the_connector_recomputes_what_a_dead_engine_cannot_give() -> None:
    engine = VllmEngine(Path("/models/m"), 8000, 5600, 5700, nixl_port=5800)
    assert msgspec.json.decode(option(engine, "kv-transfer-config"))["kv_load_failure_policy"] == "recompute"
    assert environment(engine)["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5800"


def test_an_engine_asks_no_network_for_anything() -> None:
    env = environment(ENGINE)
    assert (env["HF_HUB_OFFLINE"], env["TRANSFORMERS_OFFLINE"], env["VLLM_NO_USAGE_STATS"]) == ("1", "1", "1")


def test_engines_are_spread_over_the_cores_we_may_use() -> None:
    cores = os.sched_getaffinity(0)
    assert set(spread_cores(len(cores))) == cores
    assert len(spread_cores(len(cores) + 1)) == len(cores) + 1


async def test_a_pinned_process_runs_on_its_core_alone() -> None:
    core = max(os.sched_getaffinity(0))
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
    pin(process.pid, core)
    assert os.sched_getaffinity(process.pid) == {core}
    await process.communicate(b"")
    pin(process.pid, core)  # gone by now, which is no error


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vllm_install, "RECIPES", tmp_path)
    return tmp_path


def script(folder: Path, text: str) -> None:
    (folder / "install.sh").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "install.sh").chmod(0o755)


async def test_an_impossible_install_is_told_apart_from_a_failed_one(recipes: Path) -> None:
    script(recipes, "echo no wheel >&2; exit 69")
    with pytest.raises(CannotInstall, match="no wheel"):
        await ensure_vllm()
    script(recipes, "echo disk full; exit 1")
    with pytest.raises(InstallError, match="disk full") as failed:
        await ensure_vllm()
    assert not isinstance(failed.value, CannotInstall)


async def test_the_lines_of_an_install_are_passed_on_without_pips_warnings(recipes: Path) -> None:
    script(recipes, "echo 'WARNING: no index'; printf 'a%80000s\\n' b; echo; echo ready")
    (recipes / "m").mkdir()
    (recipes / "m" / ".made").touch()
    said: list[str] = []
    await ensure_vllm(("m",), say=said.append, install=VllmInstall(recipes / "venv", recipes))
    assert said[-1] == "ready"
    assert not any("WARNING" in line for line in said)


async def test_without_the_recipes_the_error_names_the_missing_folder(recipes: Path) -> None:
    recipes.rmdir()
    with pytest.raises(InstallError, match="source checkout"):
        await ensure_vllm()
