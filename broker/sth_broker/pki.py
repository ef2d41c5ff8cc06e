"""The broker's certificate authority: its key, the server's certificate, and those of the agents.

A Hub is known by a certificate that we signed for a key that never left its machine. What a signing
request asks for (names, uses, times) is ignored: only its key is taken, once its signature has
shown that the sender holds it.
"""

import datetime
import hashlib
import ipaddress
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sth_broker.private_files import make_private_directory, write_private
from sth_protocol.errors import BadRequest, Misconfigured

logger = logging.getLogger(__name__)

# Every broker's certificate carries it and every agent checks it, so that a change of address needs
# no new certificate and the check of the name is never switched off.
SERVER_NAME = "broker.sth.invalid"

CA_LIFETIME = datetime.timedelta(days=3650)
SERVER_LIFETIME = datetime.timedelta(days=90)
SERVER_RENEWED_BEFORE = datetime.timedelta(days=30)
# A machine whose clock is a little behind accepts its certificate all the same.
BACKDATE = datetime.timedelta(hours=1)
AGENT_LIFETIME_SECONDS = 7 * 24 * 3600.0

_MAX_CSR_CHARACTERS = 8192

PublicKey = ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate that we signed. `fingerprint`: SHA-256 of its DER, hex; `expires`: seconds
    since 1970; `key`: SHA-256 of its SubjectPublicKeyInfo, hex."""

    pem: str
    fingerprint: str
    serial: str
    key: str
    expires: int


class CertificateAuthority:
    """Signs with the key under `directory`; its certificate's pin is in every join token."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.pin = public_key_digest(certificate.public_key())

    @classmethod
    def open(cls, directory: Path, *, now: float) -> Self:
        """The authority of `directory`, made if there is none. Misconfigured if it is damaged."""
        make_private_directory(directory)
        key_path, certificate_path = directory / "ca.key", directory / "ca.pem"
        if not certificate_path.exists():
            # The certificate is written last: a key without one was never used.
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _make_ca_certificate(key, _at(now))
            write_private(key_path, key_pem(key))
            write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
            logger.info("made a certificate authority in %s", directory)
        try:
            loaded = serialization.load_pem_private_key(key_path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"the certificate authority in {directory} cannot be read: {error}",
                hint="restore ca.key and ca.pem from a backup; without them every Hub must re-join",
            ) from None
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or (
            loaded.public_key() != certificate.public_key()
        ):
            raise Misconfigured(
                f"ca.key and ca.pem in {directory} do not belong together",
                hint="restore both from the same backup",
            )
        return cls(loaded, certificate)

    def sign_agent(
        self,
        public_key: PublicKey,
        *,
        space: str,
        hub: str,
        now: float,
        lifetime: float = AGENT_LIFETIME_SECONDS,
    ) -> IssuedCertificate:
        """A client certificate for one Hub. `lifetime`: seconds from `now`."""
        expires = int(now + lifetime)
        builder = (
            _builder(_name(hub), self._certificate.subject, public_key)
            .not_valid_before(_at(now) - BACKDATE)
            .not_valid_after(_at(expires))
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"sth://{space}/hub/{hub}")]
                ),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        certificate = self._sign_leaf(builder)
        return IssuedCertificate(
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            serial=f"{certificate.serial_number:x}",
            key=public_key_digest(public_key).hex(),
            expires=expires,
        )

    def sign_server(
        self, public_key: PublicKey, *, names: Sequence[str], now: float
    ) -> x509.Certificate:
        """The certificate of the agents' port, for `broker.sth.invalid` and for `names`."""
        builder = (
            _builder(_name("sth-broker"), self._certificate.subject, public_key)
            .not_valid_before(_at(now) - BACKDATE)
            .not_valid_after(_at(now) + SERVER_LIFETIME)
            .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return self._sign_leaf(builder)

    def _sign_leaf(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(authority_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )


class ServerCertificate:
    """The files that the agents' port serves with; made, and made again before they expire."""

    def __init__(self, authority: CertificateAuthority, directory: Path, names: Sequence[str]):
        self._authority = authority
        self._names = tuple(dict.fromkeys((SERVER_NAME, *names)))
        self.key_path = directory / "server.key"
        self.certificate_path = directory / "server.pem"

    def ensure(self, *, now: float) -> bool:
        """Make the certificate if it is absent, near its end, or for other names. True if made."""
        if self._usable(now):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._authority.sign_server(key.public_key(), names=self._names, now=now)
        write_private(self.key_path, key_pem(key))
        write_private(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        logger.info("made a server certificate, valid to %s", certificate.not_valid_after_utc)
        return True

    def _usable(self, now: float) -> bool:
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except (OSError, ValueError, x509.ExtensionNotFound):
            return False
        return (
            isinstance(key, ec.EllipticCurvePrivateKey)
            # A crash between the two files leaves a pair that does not fit.
            and key.public_key() == certificate.public_key()
            and list(names.value) == _alternative_names(self._names)
            and _at(now) < certificate.not_valid_after_utc - SERVER_RENEWED_BEFORE
        )


def read_signing_request(text: str) -> PublicKey:
    """The P-256 key of a PEM signing request whose signature holds. BadRequest otherwise."""
    if len(text) > _MAX_CSR_CHARACTERS:
        raise BadRequest("the certificate signing request is too long")
    try:
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise BadRequest("not a certificate signing request in PEM") from None
    if not isinstance(key, PublicKey) or key.curve.name != "secp256r1":
        raise BadRequest(
            "the certificate signing request has a key of another kind",
            hint="use an elliptic-curve key on P-256",
        )
    if not signed:
        raise BadRequest("the signature of the certificate signing request is wrong")
    return key


def public_key_digest(key: PublicKeyTypes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: what a join token pins."""
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).digest()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, not encrypted: the file's mode and directory protect it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _make_ca_certificate(
    key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.Certificate:
    # A name of its own: a certificate of another broker is told apart before any signature is.
    name = _name(f"sth-edge CA {secrets.token_hex(4)}")
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(name, name, key.public_key())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(subject_key, critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: PublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative_name(name) for name in names]


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode())


def _key_usage(
    *, digital_signature: bool = False, signs_certificates: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
