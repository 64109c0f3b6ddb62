"""Real Envoy between grpcio's client and a `Connection`: its frames, its windows, its resets."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import yaml
from echo_client import given, stream, taken, unary
from echo_server import EchoServer, echo_server

from picker.server.up.ports import free_ports
from picker.wire.events import Reason, StreamEnded

HOST = "127.0.0.1"
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
Served = tuple[grpc.aio.Channel, set[EchoServer]]


def config(listener: int, upstream: int, window: int) -> dict[str, object]:
    """A plain HTTP/2 proxy whose windows towards us are `window` bytes."""
    extensions = "type.googleapis.com/envoy.extensions"
    small = {"initial_stream_window_size": window, "initial_connection_window_size": window}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "wire",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "wire", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"}},
        ],
    }
    options = {
        "@type": f"{extensions}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": small},
    }
    cluster = {
        "name": "wire",
        "load_assignment": {
            "cluster_name": "wire",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
    filters = [{"name": "manager", "typed_config": manager}]
    return {
        "static_resources": {
            "listeners": [{"address": address(listener), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        }
    }


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": HOST, "port_value": port}}


@pytest.fixture(params=[65_535, 16 << 20], ids=["small windows", "large windows"], scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """One Envoy for all tests: where it listens, and where it expects us."""
    listener, upstream = free_ports(2)
    file = tmp_path_factory.mktemp("envoy") / "envoy.yaml"
    file.write_text(yaml.safe_dump(config(listener, upstream, request.param)))
    arguments = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "critical"]
    process = subprocess.Popen([Path(sys.executable).with_name("envoy"), *arguments], stderr=subprocess.DEVNULL)
    yield listener, upstream
    process.kill()
    process.wait()


@pytest.fixture
async def served(envoy: tuple[int, int]) -> AsyncIterator[Served]:
    listener, upstream = envoy
    async with (
        echo_server(port=upstream) as (_, live),
        grpc.aio.insecure_channel(f"{HOST}:{listener}", UNLIMITED) as channel,
    ):
        await unary(channel)(b"ready?", wait_for_ready=True, timeout=60)
        yield channel, live


async def test_messages_of_any_size_come_back_whole(served: Served) -> None:
    for size in (0, 1, 2_000, 65_535, 3_000_000):
        message = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
        assert await unary(served[0])(message[:size]) == message[:size]


async def test_many_streams_at_once_are_kept_apart(served: Served) -> None:
    sent = [[f"{stream} {index}".encode() * 500 for index in range(30)] for stream in range(40)]
    call = stream(served[0])
    assert await asyncio.gather(*(taken(call(given(each))) for each in sent)) == sent


async def test_a_cancelled_call_reaches_us_as_a_reset(served: Served) -> None:
    call = stream(served[0])()
    await call.write(b"hello")
    assert await call.read() == b"hello"
    call.cancel()
    (server,) = served[1]
    while not server.ended:
        await asyncio.sleep(0.01)
    assert isinstance(server.ended[0], StreamEnded)
    assert server.ended[0].reason is Reason.RESET


async def test_a_call_that_we_end_early_ends_well(served: Served) -> None:
    for _ in range(20):
        call = stream(served[0], "/test.Echo/Early")()
        await call.write(b"hello")
        assert await call.read() == b"hello"
        assert await call.code() is grpc.StatusCode.OK
    assert await unary(served[0])(b"and on") == b"and on"


async def test_a_drained_connection_costs_no_call(served: Served) -> None:
    """Envoy sends calls on, while they cross our GOAWAY."""

    async def calls() -> None:
        for _ in range(60):
            assert await unary(served[0])(b"call") == b"call"

    running = asyncio.gather(*(calls() for _ in range(4)))
    while not running.done():
        for each in list(served[1]):
            each.drain()
        await asyncio.sleep(0.02)
    await running
