"""The only user of cryptography: a short-lived child that makes keys and reads certificates.

    python -m sth_agent.identity request --key FILE     the request for a certificate, on stdout
    python -m sth_agent.identity describe               certificates on stdin -> facts on stdout

The agent itself never imports this module: it would stay 8 MiB larger for as long as it runs.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sth_agent.private_files import write_private


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sth_agent.identity")
    commands = parser.add_subparsers(dest="command", required=True)
    request = commands.add_parser("request")
    request.add_argument("--key", type=Path, required=True)
    commands.add_parser("describe")
    options = parser.parse_args(arguments)
    if options.command == "request":
        sys.stdout.write(certificate_request(options.key))
        return 0
    sys.stdout.write(json.dumps(describe(sys.stdin.buffer.read())))
    return 0


def certificate_request(key_file: Path) -> str:
    """A CSR (PEM) for the key in `key_file`, which is made, durably, if there is none.

    A key that exists is used again: the broker answers a repeated enrolment only if it carries the
    same key, and that is how a lost reply is survived.
    """
    if key_file.exists():
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SystemExit(f"{key_file} is not an elliptic curve key")
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        encoded = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_private(key_file, encoded)
    # The broker decides the subject; a CSR only proves that its sender holds the key.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sth-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def describe(pem: bytes) -> list[dict[str, object]]:
    """Facts of each certificate in `pem`: digests in hexadecimal, times in seconds since 1970."""
    return [
        {
            "fingerprint": each.fingerprint(hashes.SHA256()).hex(),
            "pin": hashlib.sha256(
                each.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            ).hexdigest(),
            "issuer": each.issuer.rfc4514_string(),
            "not_before": each.not_valid_before_utc.timestamp(),
            "not_after": each.not_valid_after_utc.timestamp(),
        }
        for each in x509.load_pem_x509_certificates(pem)
    ]


if __name__ == "__main__":
    os.umask(0o077)
    raise SystemExit(main())
