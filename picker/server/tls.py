"""Server credentials: a self-signed certificate made at start, or a given one that is read again when it changes."""

import datetime
import ipaddress
import ssl
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

log = structlog.get_logger(__name__)


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
    first = read_pair(folder)
    if not reload:
        return grpc.ssl_server_credentials([first])
    seen, current = _stamp(folder), grpc.ssl_server_certificate_configuration([first])

    def newest() -> grpc.ServerCertificateConfiguration:
        nonlocal seen, current
        try:
            stamp = _stamp(folder)
            if stamp != seen:
                current = grpc.ssl_server_certificate_configuration([read_pair(folder)])
                seen = stamp
                log.info("certificate reloaded", folder=str(folder))
        except (OSError, ValueError) as error:
            log.warning("certificate not reloaded", folder=str(folder), reason=str(error))
        return current

    return grpc.dynamic_ssl_server_credentials(current, newest)


def metrics_context(folder: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS for the metrics port with the pair in `folder`; with `client_ca`, only for clients with its certificates.

    Raises OSError or ValueError (ssl.SSLError is an OSError) for files that cannot be used.
    """
    read_pair(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


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


def _stamp(folder: Path) -> tuple[int, int]:
    return (folder / "tls.key").stat().st_mtime_ns, (folder / "tls.crt").stat().st_mtime_ns
