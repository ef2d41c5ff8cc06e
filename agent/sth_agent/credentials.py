"""The identity of this machine on disk: a key, its certificate and the CA that it trusts.

    identity/
        current -> 3                what the agent uses; replaced by rename, so always whole
        3/                          key.pem certificate.pem ca.pem identity.json
        4/                          a renewal that has not yet connected; dropped if it never does
        request-<token id>.pem      the key of an enrolment that may still be answered

The key is made by the child process and only ever read by OpenSSL.
"""

import os
import shutil
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sth_agent.config import SYSTEM_STATE
from sth_agent.private_files import (
    make_private_directory,
    read_json,
    write_private,
    write_private_json,
)
from sth_protocol.errors import Misconfigured
from sth_protocol.files import sync_directory

KEY, CERTIFICATE, AUTHORITY, FACTS = "key.pem", "certificate.pem", "ca.pem", "identity.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this machine is. `issued`, `expires`: seconds since 1970; `pins`: of the CA, hex."""

    directory: Path
    hub: str
    name: str
    space: str
    addresses: tuple[str, ...]
    pins: tuple[str, ...]
    fingerprint: str
    issued: float
    expires: float

    @property
    def half_life(self) -> float:
        """When renewal is due, without its jitter."""
        return self.issued + (self.expires - self.issued) / 2

    def tls_context(self) -> ssl.SSLContext:
        """Trusts the pinned CA only, and proves this identity."""
        context = trusting_context((self.directory / AUTHORITY).read_text())
        context.load_cert_chain(self.directory / CERTIFICATE, self.directory / KEY)
        return context

    def anonymous_context(self) -> ssl.SSLContext:
        """Trusts the same CA and proves nothing."""
        return trusting_context((self.directory / AUTHORITY).read_text())


def trusting_context(authority_pem: str) -> ssl.SSLContext:
    """TLS 1.3 that trusts this CA only; the name of the server is checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority_pem)
    return context


@dataclass(frozen=True, slots=True)
class Issued:
    """What a broker granted: certificates in PEM, and what they say."""

    hub: str
    name: str
    space: str
    addresses: tuple[str, ...]
    certificate: str
    authority: str
    pins: tuple[str, ...]
    fingerprint: str
    issued: float
    expires: float


class IdentityStore:
    """The identity directory. Nothing in it is ever changed in place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._link = directory / "current"

    def current(self) -> Identity | None:
        """The identity in use; None if this machine has not joined."""
        try:
            target = self._directory / os.readlink(self._link)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Misconfigured(
                f"the identity in {self._directory} cannot be read: {error.strerror}",
                hint="is this machine's agent another user's? then say sudo",
            ) from None
        facts = read_json(target / FACTS)
        if facts is None:
            raise Misconfigured(
                f"the identity in {target} is incomplete",
                hint="join this machine again with a new token",
            )
        return _identity(target, facts)

    def request_key(self, name: str) -> Path:
        """Where the key of a pending request belongs."""
        make_private_directory(self._directory)
        return self._directory / f"request-{name}.pem"

    def add(self, key_file: Path, issued: Issued) -> Identity:
        """Store a new identity beside the one in use; the key file stays where it is, too."""
        numbers = [int(each.name) for each in self._directory.iterdir() if each.name.isdigit()]
        directory = make_private_directory(self._directory / str(max(numbers, default=0) + 1))
        write_private(directory / KEY, key_file.read_bytes())
        write_private(directory / CERTIFICATE, issued.certificate.encode())
        write_private(directory / AUTHORITY, issued.authority.encode())
        facts = {
            "hub": issued.hub,
            "name": issued.name,
            "space": issued.space,
            "addresses": list(issued.addresses),
            "pins": list(issued.pins),
            "fingerprint": issued.fingerprint,
            "issued": issued.issued,
            "expires": issued.expires,
        }
        write_private_json(directory / FACTS, facts)
        return _identity(directory, facts)

    def promote(self, identity: Identity) -> None:
        """Use this one from now on, durably, and drop all others and all pending requests."""
        temporary = self._directory / "current.new"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(identity.directory.name)
        temporary.rename(self._link)
        sync_directory(self._directory)
        self.drop_others(identity)

    def drop_others(self, keep: Identity) -> None:
        """Remove what an earlier process left behind."""
        for each in self._directory.iterdir():
            if each.name.isdigit() and each != keep.directory:
                shutil.rmtree(each)
            elif each.name.startswith("request-"):
                each.unlink()

    def discard(self, identity: Identity) -> None:
        """Drop a candidate that did not connect."""
        shutil.rmtree(identity.directory, ignore_errors=True)

    def forget(self) -> None:
        """Remove every identity and key."""
        shutil.rmtree(self._directory, ignore_errors=True)


def require_identity(directory: Path) -> Identity:
    """Who this machine is, without a look at its key; Misconfigured if it has not joined."""
    identity = IdentityStore(directory).current()
    if identity is None:
        raise Misconfigured(
            f"this machine has not joined a broker ({directory.parent} holds no identity)",
            hint=_hint_of_the_missing(directory.parent),
        )
    return identity


def _hint_of_the_missing(state: Path) -> str:
    hint = "sth-agent join TOKEN; `sth token create join` makes one"
    if state != SYSTEM_STATE and SYSTEM_STATE.exists():
        return f"{hint}; or is root's agent meant, in {SYSTEM_STATE}? then say sudo"
    return hint


def _identity(directory: Path, facts: dict[str, Any]) -> Identity:
    try:
        return Identity(
            directory=directory,
            hub=str(facts["hub"]),
            name=str(facts["name"]),
            space=str(facts["space"]),
            addresses=tuple(map(str, facts["addresses"])),
            pins=tuple(map(str, facts["pins"])),
            fingerprint=str(facts["fingerprint"]),
            issued=float(facts["issued"]),
            expires=float(facts["expires"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"{directory / FACTS} is damaged: {error!r}") from None
