"""What Kubernetes and gateways ask of the two gRPC ports."""

import asyncio
import datetime
import signal
import socket
import ssl
from pathlib import Path

import grpc
from cryptography import x509
from gateway import chat, gateway, until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.server.tls import self_signed
from picker.server.up.ports import HOST

ANSWERS = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = int(ANSWERS.SERVING), int(ANSWERS.NOT_SERVING)
READINESS = ["", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"]


async def health(port: int, name: str) -> int:
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        return int(response.status)


async def test_both_ports_answer_every_name_that_gateways_and_charts_ask_for_until_the_picker_drains() -> None:
    async with gateway("echo", engines=1, speedup=1.0) as running:
        for port in (running.stack.grpc_port, running.stack.health_port):
            for name in [*READINESS, "liveness", "a-name-of-somebody-else"]:
                assert await health(port, name) == SERVING

        _, (task,) = await running.begin_many(1, max_tokens=400)
        running.picker.signal(signal.SIGTERM)

        async def not_ready() -> bool:
            return await health(running.stack.health_port, "readiness") == NOT_SERVING

        await until(not_ready)
        for name in READINESS:
            assert await health(running.stack.health_port, name) == NOT_SERVING
        assert await health(running.stack.health_port, "liveness") == SERVING
        assert (await task).ok


def write_certificate(folder: Path) -> int:
    """A new pair in `folder`; returns its serial number."""
    key, certificate = self_signed()
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.crt").write_bytes(certificate)
    return x509.load_pem_x509_certificate(certificate).serial_number


def served_certificate(port: int) -> x509.Certificate:
    """What a gateway that connects now gets to see."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((HOST, port), 5) as plain, context.wrap_socket(plain) as wrapped:
        assert wrapped.selected_alpn_protocol() == "h2"
        certificate = wrapped.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate)


async def test_envoy_speaks_tls_to_a_picker_with_the_certificate_of_its_own_making() -> None:
    async with gateway(engines=1, argv=["--secure-serving", "true"], tls=True) as running:
        assert (await running.ask(chat(stream=True))).ok
        await running.at_rest()
        certificate = await asyncio.to_thread(served_certificate, running.stack.grpc_port)
        assert certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)


async def test_a_new_certificate_is_served_to_new_connections_and_a_broken_one_is_not(tmp_path: Path) -> None:
    first = write_certificate(tmp_path)
    argv = ["--secure-serving", "true", "--cert-path", str(tmp_path), "--enable-cert-reload"]
    async with gateway(engines=1, argv=argv, tls=True) as running:

        async def serial() -> int:
            return (await asyncio.to_thread(served_certificate, running.stack.grpc_port)).serial_number

        assert await serial() == first
        assert (await running.ask(chat())).ok
        second = write_certificate(tmp_path)
        assert await serial() == second != first
        (tmp_path / "tls.key").write_text("half a ke")
        assert await serial() == second
        assert (await running.ask(chat())).ok
        assert '"certificate not reloaded"' in running.picker.log.read_text()
