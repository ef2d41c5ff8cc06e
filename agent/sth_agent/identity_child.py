"""The agent's face of `sth_agent.identity`: runs it as a child process and reads its answer."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sth_protocol.errors import Internal

CHILD_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """`fingerprint` of the certificate, `pin` of its public key: SHA-256 in hexadecimal."""

    fingerprint: str
    pin: str
    issuer: str
    not_before: float
    not_after: float


def request_certificate(key_file: Path) -> str:
    """A CSR (PEM) for the key in `key_file`, which the child makes if there is none."""
    return _run(["request", "--key", str(key_file)], b"").decode()


def describe_certificates(pem: str) -> list[CertificateFacts]:
    """The certificates in `pem`; empty if there is none that can be read."""
    try:
        facts = json.loads(_run(["describe"], pem.encode()))
    except Internal:
        return []
    return [CertificateFacts(**each) for each in facts]


def _run(arguments: list[str], data: bytes) -> bytes:
    # -P: nothing in the current directory may stand in for a module.
    command = [sys.executable, "-P", "-m", "sth_agent.identity", *arguments]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=CHILD_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Internal(f"the key child could not be run: {error}") from None
    if done.returncode != 0:
        last_line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Internal(f"the key child failed: {last_line}")
    return done.stdout
