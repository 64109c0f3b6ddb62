"""Certificates: made at start, read from files, read again."""

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from picker.server.admin import metrics_app
from picker.server.health import Health
from picker.server.tls import metrics_context, read_pair, self_signed
from picker.server.transport import TRANSPORTS, Door, Server, Transport, open_server


def write(folder: Path, pair: tuple[bytes, bytes] | None = None) -> int:
    """A pair in `folder`; returns its certificate's serial number."""
    key, certificate = pair or self_signed()
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.crt").write_bytes(certificate)
    return x509.load_pem_x509_certificate(certificate).serial_number


async def shown(port: int) -> int:
    """Serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    wrapped = writer.get_extra_info("ssl_object")
    writer.close()
    assert wrapped.selected_alpn_protocol() == "h2"
    return x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True)).serial_number


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Transport:
    chosen: Transport = request.param
    return chosen


async def serving(transport: Transport, folder: Path | None, *, reload: bool = False) -> Server:
    server = await open_server(transport, Door("127.0.0.1", 0, False, folder, reload), Health())
    await server.start()
    return server


def test_a_certificate_of_our_own_names_localhost_and_is_valid_now() -> None:
    key, pem = self_signed(valid_days=1)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 1
    assert serialization.load_pem_private_key(key, None).public_key() == certificate.public_key()


def test_two_starts_make_two_certificates() -> None:
    assert self_signed()[1] != self_signed()[1]


async def test_without_a_folder_the_port_speaks_tls_all_the_same(transport: Transport) -> None:
    server = await serving(transport, None)
    assert await shown(server.port) > 0
    await server.stop(0)


async def test_a_changed_pair_is_seen_by_the_next_connection(transport: Transport, tmp_path: Path) -> None:
    first = write(tmp_path)
    server = await serving(transport, tmp_path, reload=True)
    assert await shown(server.port) == first
    second = write(tmp_path)
    assert await shown(server.port) == second != first
    await server.stop(0)


@pytest.mark.parametrize("broken", ["half a key", ""])
async def test_a_broken_pair_leaves_the_last_good_one(transport: Transport, tmp_path: Path, broken: str) -> None:
    good = write(tmp_path)
    server = await serving(transport, tmp_path, reload=True)
    (tmp_path / "tls.key").write_text(broken)
    assert await shown(server.port) == good
    (tmp_path / "tls.crt").unlink()
    assert await shown(server.port) == good
    healed = write(tmp_path)
    assert await shown(server.port) == healed
    await server.stop(0)


async def test_without_reload_the_first_pair_stays(transport: Transport, tmp_path: Path) -> None:
    first = write(tmp_path)
    server = await serving(transport, tmp_path)
    write(tmp_path)
    assert await shown(server.port) == first
    await server.stop(0)


async def page_status(folder: Path, client_ca: Path | None, client: ssl.SSLContext) -> int:
    """Status of /metrics over TLS, as this client sees it; 0 where it is not let in."""
    runner = web.AppRunner(metrics_app([]))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=metrics_context(folder, client_ca)).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/metrics"
    try:
        async with aiohttp.ClientSession() as session, session.get(url, ssl=client) as response:
            return response.status
    except aiohttp.ClientError:
        return 0
    finally:
        await runner.cleanup()


async def test_metrics_over_tls_are_for_everybody_or_for_those_with_a_certificate(tmp_path: Path) -> None:
    write(tmp_path)
    stranger = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    known = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    known.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert await page_status(tmp_path, None, stranger) == 200
    assert await page_status(tmp_path, tmp_path / "tls.crt", stranger) == 0
    assert await page_status(tmp_path, tmp_path / "tls.crt", known) == 200


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    write(tmp_path, (self_signed()[0], self_signed()[1]))
    with pytest.raises(ValueError, match="does not belong"):
        read_pair(tmp_path)


async def test_a_missing_file_is_told_by_name(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tls\.key"):
        await serving(transport, tmp_path, reload=True)


def test_a_key_under_a_password_is_told(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    write(tmp_path, (locked, self_signed()[1]))
    with pytest.raises(ValueError, match=r"[Pp]assword"):
        read_pair(tmp_path)


@pytest.mark.parametrize("text", ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_a_value_error(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "tls.key").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        read_pair(tmp_path)
