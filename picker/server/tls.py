"""Server credentials: a self-signed certificate made at start, or a given one that is read again when it changes."""

import datetime
import ipaddress
import os
import ssl
import tempfile
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from picker.server.renewed import Newest, renewing

CIPHERS = "GRPC_SSL_CIPHER_SUITES"
"""Environment variable of gRPC's own libraries: the cipher suites of TLS 1.2, by OpenSSL's names, between colons."""


def self_signed(valid_days: int = 3650) -> tuple[bytes, bytes]:
    """A fresh P-256 key and certificate (PEM, key first) for `picker`, localhost and 127.0.0.1.

    Gateways do not verify it (contract: TLS by default, self-signed); it keeps the wire private, not authentic.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "picker")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("picker"), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=valid_days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def credentials(folder: Path | None, reload: bool) -> grpc.ServerCredentials:
    """Credentials from `tls.key` and `tls.crt` in `folder`, or self-signed ones when it is None.

    With `reload`, each new connection sees the files' newest pair; a broken pair is reported and the last good one
    stays. Raises OSError or ValueError when the first pair is missing or does not fit.
    """
    if folder is None:
        return grpc.ssl_server_credentials([self_signed()])
    if not reload:
        return grpc.ssl_server_credentials([read_pair(folder)])
    newest = Newest(_pair_files(folder), lambda: grpc.ssl_server_certificate_configuration([read_pair(folder)]))
    return grpc.dynamic_ssl_server_credentials(newest(), newest)


def h2_context(folder: Path | None, reload: bool) -> ssl.SSLContext:
    """The same for Python's own TLS, with HTTP/2 by ALPN. Raises the same."""
    if folder is None:
        return _h2_context(self_signed())
    if not reload:
        return _h2_context(read_pair(folder))
    return renewing(Newest(_pair_files(folder), lambda: _h2_context(read_pair(folder))))


def _h2_context(pair: tuple[bytes, bytes]) -> ssl.SSLContext:
    """Raises ssl.SSLError, which is an OSError, for a pair that OpenSSL refuses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    if suites := os.environ.get(CIPHERS):
        context.set_ciphers(suites)
    # OpenSSL reads files alone.
    with tempfile.TemporaryDirectory(prefix="picker-tls-") as name:
        key, chain = (Path(name) / file for file in ("tls.key", "tls.crt"))
        key.write_bytes(pair[0])
        chain.write_bytes(pair[1])
        context.load_cert_chain(chain, key)
    return context


def metrics_context(folder: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS for a port of HTTP, be it for metrics or for hand-off, with the pair in `folder`; with `client_ca`, only for
    clients with its certificates. Each new connection sees the newest files that fit.

    Raises OSError or ValueError (ssl.SSLError is an OSError) for files that cannot be used.
    """

    def make() -> ssl.SSLContext:
        read_pair(folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return renewing(Newest([*_pair_files(folder), *([] if client_ca is None else [client_ca])], make))


def read_pair(folder: Path) -> tuple[bytes, bytes]:
    """(key, certificate chain) as PEM. Raises OSError when a file is missing, ValueError when the two do not belong."""
    private, chain = (folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes()
    try:
        key = serialization.load_pem_private_key(private, password=None)
        certificate = x509.load_pem_x509_certificate(chain)
    except (TypeError, UnsupportedAlgorithm) as error:  # a key under a password, a curve that nobody knows
        raise ValueError(f"{folder}: {error}") from error
    if key.public_key() != certificate.public_key():
        raise ValueError("tls.key does not belong to tls.crt")
    return private, chain


def _pair_files(folder: Path) -> list[Path]:
    return [folder / "tls.key", folder / "tls.crt"]
