"""Keys and certificates on disk, and the child that makes them."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sth_agent.credentials import IdentityStore, Issued, require_identity
from sth_agent.identity_child import describe_certificates, request_certificate
from sth_broker.pki import CertificateAuthority
from sth_protocol.errors import Internal, Misconfigured


def issued(authority: CertificateAuthority, *, name: str = "pi") -> Issued:
    pem = authority.pem
    return Issued(
        hub="id-1",
        name=name,
        space="default",
        addresses=("127.0.0.1:8443",),
        certificate=pem,
        authority=pem,
        pins=tuple(each.pin for each in describe_certificates(pem)),
        fingerprint="f" * 64,
        issued=1000.0,
        expires=2000.0,
    )


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "pki", now=1_700_000_000.0)


def test_request_proves_a_new_p256_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    request = x509.load_pem_x509_csr(request_certificate(key_file).encode())
    assert request.is_signature_valid
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [key_file]


def test_request_for_a_key_that_exists_is_of_that_key(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    first, second = (
        x509.load_pem_x509_csr(request_certificate(key_file).encode()) for _ in range(2)
    )
    assert first.public_key() == second.public_key()


def test_request_with_a_broken_key_is_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_text("not a key")
    with pytest.raises(Internal, match="key child"):
        request_certificate(key_file)


def test_description_has_the_pin_of_the_authority(authority: CertificateAuthority) -> None:
    (facts,) = describe_certificates(authority.pem)
    assert facts.pin == authority.pin.hex()
    assert facts.not_before < facts.not_after


def test_description_of_nonsense_is_empty() -> None:
    assert describe_certificates("nonsense") == []


def test_identity_is_used_when_it_is_promoted(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    store = IdentityStore(tmp_path / "identity")
    key_file = store.request_key("abc")
    request_certificate(key_file)
    first = store.add(key_file, issued(authority))
    assert store.current() is None
    store.promote(first)
    assert store.current() == first
    assert not key_file.exists()
    second = store.add(first.directory / "key.pem", issued(authority, name="other"))
    assert store.current() == first
    store.promote(second)
    assert store.current() == second
    assert not first.directory.exists()


def test_candidate_that_never_connected_is_dropped(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    store = IdentityStore(tmp_path / "identity")
    key_file = store.request_key("abc")
    request_certificate(key_file)
    first = store.add(key_file, issued(authority))
    store.promote(first)
    candidate = store.add(first.directory / "key.pem", issued(authority))
    again = IdentityStore(tmp_path / "identity")
    current = again.current()
    assert current == first
    again.drop_others(current)
    assert not candidate.directory.exists()
    assert first.directory.exists()


def test_identity_files_are_private(tmp_path: Path, authority: CertificateAuthority) -> None:
    store = IdentityStore(tmp_path / "identity")
    key_file = store.request_key("abc")
    request_certificate(key_file)
    identity = store.add(key_file, issued(authority))
    for each in identity.directory.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each


def test_identity_that_is_damaged_is_named(tmp_path: Path, authority: CertificateAuthority) -> None:
    store = IdentityStore(tmp_path / "identity")
    key_file = store.request_key("abc")
    request_certificate(key_file)
    identity = store.add(key_file, issued(authority))
    store.promote(identity)
    (identity.directory / "identity.json").write_text('{"hub": 1}')
    with pytest.raises(Misconfigured, match=r"identity\.json"):
        store.current()


def test_identity_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="cannot be read: Not a directory"):
        require_identity(tmp_path / "file" / "identity")


def test_machine_that_has_not_joined_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as refused:
        require_identity(tmp_path / "identity")
    assert refused.value.exit_code == 78
    assert "sth-agent join" in refused.value.hint


def test_agent_is_light() -> None:
    """What the running agent and its command load, without the child for keys."""
    code = (
        "import sth_agent.agent, sth_agent.cli, sys; "
        "print(*sorted({each.partition('.')[0] for each in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"aiohttp", "rich", "uvloop", "cryptography", "sqlite3", "multiprocessing"}
    assert heavy.isdisjoint(done.stdout.split())
