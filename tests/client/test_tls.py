"""https: the CA that is given is the only one that is trusted."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.client.answering import AnsweringServer, answering
from tests.client.conftest import Drivers

from sth_protocol.errors import StreamFailed, Unreachable


def write_certificate(path: Path, *, name: str) -> None:
    """A certificate of its own making for 127.0.0.1, and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    plain = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(encoding) + plain)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "own.pem"
    write_certificate(path, name="own")
    return path


@pytest.fixture
def secure_server(certificate: Path) -> Iterator[AnsweringServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with answering(context) as running:
        yield running


def test_streams_pass_both_ways_with_the_right_ca(
    drivers: Drivers, secure_server: AnsweringServer, certificate: Path
) -> None:
    secure_server.answer("POST /api/v1/instance/i1/input", {})
    secure_server.stream("GET /api/v1/instance/i1/output", b"out")
    driver = drivers.make(secure_server.url, ca_file=str(certificate))
    driver.call("send_input", "i1", [b"a" * 70_000, b"b"])
    assert secure_server.received[0].body == b"a" * 70_000 + b"b"
    assert driver.read("output", "i1") == [b"out"]


def test_broken_stream_is_no_end_under_tls_either(
    drivers: Drivers, secure_server: AnsweringServer, certificate: Path
) -> None:
    secure_server.stream("GET /api/v1/instance/i1/output", b"part", breaks=True)
    driver = drivers.make(secure_server.url, ca_file=str(certificate))
    with pytest.raises(StreamFailed, match="broke off after 4 bytes"):
        driver.read("output", "i1")


def test_other_ca_is_refused_before_anything_is_sent(
    drivers: Drivers, secure_server: AnsweringServer, tmp_path: Path
) -> None:
    write_certificate(tmp_path / "other.pem", name="other")
    driver = drivers.make(secure_server.url, token="e.y.j", ca_file=str(tmp_path / "other.pem"))
    with pytest.raises(Unreachable, match="the certificate of https://") as caught:
        driver.call("version")
    assert "--ca-file" in caught.value.hint
    assert secure_server.received == []


def test_without_a_ca_the_systems_are_meant(
    drivers: Drivers, secure_server: AnsweringServer
) -> None:
    with pytest.raises(Unreachable, match="the certificate of https://"):
        drivers.make(secure_server.url).call("version")
