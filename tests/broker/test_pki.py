"""The certificate authority: what it keeps, what it signs, and what it refuses to sign."""

import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.broker_core import make_key, signing_request

from sth_broker.pki import (
    SERVER_NAME,
    CertificateAuthority,
    ServerCertificate,
    public_key_digest,
    read_signing_request,
)
from sth_protocol.errors import BadRequest, Misconfigured

NOW = 1_800_000_000.0
DAY = 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "pki", now=NOW)


def test_authority_is_the_same_when_opened_again(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    again = CertificateAuthority.open(tmp_path / "pki", now=NOW + DAY)
    assert (again.pem, again.pin) == (authority.pem, authority.pin)


def test_authority_keeps_its_key_to_itself(tmp_path: Path, authority: CertificateAuthority) -> None:
    directory = tmp_path / "pki"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in directory.iterdir()} == {0o600}


def test_authority_that_lost_its_certificate_before_use_is_made_anew(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    directory.mkdir()
    (directory / "ca.key").write_bytes(b"")
    assert len(CertificateAuthority.open(directory, now=NOW).pin) == 32


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN NONSENSE-----"])
def test_damaged_authority_is_told_not_replaced(
    tmp_path: Path, authority: CertificateAuthority, damage: bytes
) -> None:
    (tmp_path / "pki" / "ca.key").write_bytes(damage)
    with pytest.raises(Misconfigured):
        CertificateAuthority.open(tmp_path / "pki", now=NOW)


def test_authority_with_the_key_of_another_is_refused(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    CertificateAuthority.open(tmp_path / "other", now=NOW)
    os.replace(tmp_path / "other" / "ca.key", tmp_path / "pki" / "ca.key")
    with pytest.raises(Misconfigured, match="belong together"):
        CertificateAuthority.open(tmp_path / "pki", now=NOW)


def test_agents_certificate_says_what_the_broker_decides(authority: CertificateAuthority) -> None:
    key = make_key()
    issued = authority.sign_agent(
        read_signing_request(signing_request(key)), space="s", hub="h", now=NOW, lifetime=60
    )
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["sth://s/hub/h"]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not constraints.ca
    assert certificate.not_valid_before_utc.timestamp() == NOW - 3600
    assert certificate.not_valid_after_utc.timestamp() == NOW + 60 == issued.expires
    assert certificate.fingerprint(hashes.SHA256()).hex() == issued.fingerprint
    assert public_key_digest(key.public_key()).hex() == issued.key
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem.encode()))


def test_what_a_signing_request_asks_for_is_ignored(authority: CertificateAuthority) -> None:
    key = make_key()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    issued = authority.sign_agent(read_signing_request(request), space="s", hub="h", now=NOW)
    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def test_signing_request_with_an_rsa_key_is_refused() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(BadRequest, match="another kind"):
        read_signing_request(signing_request(key))


def test_signing_request_on_another_curve_is_refused() -> None:
    with pytest.raises(BadRequest, match="another kind"):
        read_signing_request(signing_request(ec.generate_private_key(ec.SECP384R1())))


def test_signing_request_whose_signature_is_wrong_is_refused() -> None:
    request = x509.load_pem_x509_csr(signing_request(make_key()).encode())
    encoded = bytearray(request.public_bytes(serialization.Encoding.DER))
    encoded[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(encoded))
    with pytest.raises(BadRequest, match="signature"):
        read_signing_request(forged.public_bytes(serialization.Encoding.PEM).decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
        "x" * 9000,
    ],
)
def test_signing_request_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read_signing_request(text)


def test_server_certificate_carries_the_fixed_name_and_the_addresses(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    server = ServerCertificate(authority, tmp_path, ["pi.example", "192.0.2.7", "::1"])
    assert server.ensure(now=NOW)
    certificate = x509.load_pem_x509_certificate(server.certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [SERVER_NAME, "pi.example"]
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["192.0.2.7", "::1"]


def test_server_certificate_is_kept_until_near_its_end(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    server = ServerCertificate(authority, tmp_path, ["a.example"])
    assert server.ensure(now=NOW)
    assert not server.ensure(now=NOW + 59 * DAY)
    assert server.ensure(now=NOW + 61 * DAY)
    assert not server.ensure(now=NOW + 62 * DAY)


def test_server_certificate_is_made_anew_for_other_names(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    assert ServerCertificate(authority, tmp_path, ["a.example"]).ensure(now=NOW)
    assert ServerCertificate(authority, tmp_path, ["b.example"]).ensure(now=NOW)


def test_server_certificate_of_a_crash_between_its_files_is_made_anew(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    server = ServerCertificate(authority, tmp_path, [])
    server.ensure(now=NOW)
    other = tmp_path / "other"
    other.mkdir()
    ServerCertificate(authority, other, []).ensure(now=NOW)
    os.replace(other / "server.key", server.key_path)
    assert server.ensure(now=NOW)
