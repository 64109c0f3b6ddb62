"""The pod of the standalone mode as processes of this machine, with real Envoy and a simulated engine."""

import subprocess
from pathlib import Path

import aiohttp
import yaml
from chart_rendering import STANDALONE, Rendered, at, merged, render

from picker.server.envoy import EnvoySpec, bootstrap
from picker.server.processes import Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import SimulatedEngines, command, engine_argv, envoy_binary, until_ok

GPU = "h100_sxm/llama-3-8b tp1"


def envoy_config(rendered: Rendered, folder: Path, *more: str) -> Path:
    """What the init container leaves in the volume that it shares with Envoy."""
    container = rendered.container("envoy-config")
    assert container["command"] == ["picker", "envoy-config"]
    arguments = [each.replace("/etc/envoy", str(folder)) for each in container["args"]]
    subprocess.run([*command("envoy-config"), *arguments, *more], check=True)
    return folder / "envoy.yaml"


def test_envoy_s_configuration_is_the_one_that_picker_generates_for_these_values(tmp_path: Path) -> None:
    rendered = render(STANDALONE, at("picker.workers", 2), at("router.proxy", {"port": 8000, "responsePath": "detach"}))
    spec = EnvoySpec(
        listener_port=8000,
        admin_port=19000,
        picker_ports=(9002, 9003),
        response_path="detach",
        balancing="original-dst",
        listen="0.0.0.0",
    )
    assert yaml.safe_load(envoy_config(rendered, tmp_path).read_text()) == bootstrap(spec)


def test_envoy_takes_its_configuration_and_its_arguments(tmp_path: Path) -> None:
    rendered = render(STANDALONE)
    file = envoy_config(rendered, tmp_path)
    arguments = [each.replace("/etc/envoy", str(tmp_path)) for each in rendered.container("envoy")["args"]]
    assert str(file) in arguments
    validated = subprocess.run(
        [envoy_binary(), *arguments, "--mode", "validate"], capture_output=True, text=True, check=False
    )
    assert validated.returncode == 0, validated.stderr[-2000:]


async def test_the_pod_serves_its_first_request(tmp_path: Path) -> None:
    engine, events, replay, listener, envoy_admin, grpc, health, metrics, admin = free_ports(9)
    rendered = render(
        merged(
            at("picker.endpoints", [f"{HOST}:{engine}"]),
            at("router.proxy", {"enabled": True, "port": listener, "concurrency": 1}),
            at("router.epp", {"extProcPort": grpc, "grpcHealthPort": health, "flags": {"admin-port": admin}}),
            at("router.metricsPort", metrics),
        )
    )
    places = {"/etc/picker/config": tmp_path, "/var/lib/picker": tmp_path / "state", "/etc/envoy": tmp_path}
    for name, text in rendered.one("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    arguments = {name: list(rendered.container(name)["args"]) for name in ("epp", "envoy")}
    for name, given in arguments.items():
        for place, folder in places.items():
            given[:] = [each.replace(place, str(folder)) for each in given]
        assert not any(place in each for each in given for place in places), name
    envoy_config(rendered, tmp_path, f"--envoy-admin-port={envoy_admin}")
    children = Children(tmp_path / "logs")
    try:
        simulated = await children.start(
            "engine", engine_argv(engine, events, replay, GPU, SimulatedEngines([GPU], speedup=10))
        )
        picker = await children.start("picker", [*command("serve"), *arguments["epp"]])
        envoy = await children.start("envoy", [envoy_binary(), *arguments["envoy"]])
        await until_ok(f"http://{HOST}:{engine}/health", simulated)
        await until_ok(f"http://{HOST}:{metrics}/metrics", picker)
        await until_ok(f"http://{HOST}:{envoy_admin}/ready", envoy)
        question = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://{HOST}:{listener}/v1/chat/completions", json=question) as answer,
        ):
            body = await answer.json()
            assert answer.status == 200, body
            assert body["usage"]["completion_tokens"] == 4
    finally:
        await children.stop()
