"""What the broker remembers of one Hub, and what it thinks of that Hub's certificates. Pure."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from sth_broker.pki import IssuedCertificate
from sth_protocol.errors import CertificateExpired, Revoked, SthError
from sth_protocol.model import HubInfo, Json, from_map, to_map

# `issued`: nobody has connected with it yet; `replaced`: a newer one has connected since.
CertificateState = Literal["issued", "current", "replaced"]
# What an agent is told of the certificate that it shows.
Verdict = Literal["active", "expired", "revoked", "unknown"]

# An expired certificate may still renew itself: a machine that was in a drawer.
GRACE_SECONDS = 30 * 24 * 3600.0
MAX_CERTIFICATES = 16


@dataclass(frozen=True, slots=True)
class HubCertificate:
    """One certificate of the allow-list. `fingerprint`: SHA-256 of its DER, hex; `expires`: seconds
    since 1970."""

    fingerprint: str
    serial: str
    expires: int
    state: CertificateState = "issued"


@dataclass(frozen=True, slots=True)
class Hub:
    """A joined machine. `certificates`: the oldest first; times in ms since 1970, 0: never."""

    hub_id: str
    space: str
    name: str
    created_ms: int
    info: HubInfo
    certificates: tuple[HubCertificate, ...] = ()
    revoked_ms: int = 0
    last_seen_ms: int = 0

    @property
    def revoked(self) -> bool:
        return self.revoked_ms > 0

    def to_value(self) -> Json:
        """The map that is stored."""
        value = to_map(self)
        value["certificates"] = list(value["certificates"])
        return value

    @classmethod
    def from_value(cls, value: Json) -> "Hub":
        """The Hub of a stored map."""
        known = {each.name for each in dataclasses.fields(cls)}
        fields = {name: each for name, each in value.items() if name in known}
        fields["info"] = from_map(HubInfo, value["info"])
        fields["certificates"] = tuple(
            from_map(HubCertificate, each) for each in value["certificates"]
        )
        return cls(**fields)

    def judge(self, fingerprint: str, *, now: float) -> Verdict:
        """What to think of one who holds the key of that certificate. `now`: seconds since 1970."""
        found = self._certificate(fingerprint)
        if found is None:
            return "unknown"
        if self.revoked or found.state == "replaced":
            return "revoked"
        return "active" if now < found.expires else "expired"

    def check(self, fingerprint: str, *, now: float, renewing: bool = False) -> None:
        """Raise what refuses the holder of that certificate: Revoked or CertificateExpired.
        `renewing`: an expired one will do, for 30 days."""
        error = self._refusal(fingerprint, now=now, renewing=renewing)
        if error is not None:
            raise error

    def _refusal(self, fingerprint: str, *, now: float, renewing: bool) -> SthError | None:
        found = self._certificate(fingerprint)
        if self.revoked:
            return Revoked(f"Hub {self.name} was revoked")
        if found is None:
            return Revoked(f"this certificate of Hub {self.name} is not known any more")
        if found.state == "replaced":
            return Revoked(f"this certificate of Hub {self.name} was replaced by a newer one")
        if now >= found.expires + (GRACE_SECONDS if renewing else 0):
            return CertificateExpired(
                f"the certificate of Hub {self.name} has expired",
                hint="join this machine again with a new token: `sth token create join`"
                if renewing
                else "the agent renews it by itself within 30 days",
            )
        return None

    def with_issued(self, issued: IssuedCertificate) -> "Hub":
        """After a certificate was signed: it and those before it may be used."""
        added = HubCertificate(issued.fingerprint, issued.serial, issued.expires)
        return dataclasses.replace(self, certificates=_pruned((*self.certificates, added)))

    def with_connected(self, fingerprint: str, info: HubInfo, *, now_ms: int) -> "Hub":
        """After a link began with that certificate: those before it may not be used any more."""
        position = [each.fingerprint for each in self.certificates].index(fingerprint)
        certificates = tuple(
            dataclasses.replace(each, state=_state_after(index, position, each.state))
            for index, each in enumerate(self.certificates)
        )
        return dataclasses.replace(self, certificates=certificates, info=info, last_seen_ms=now_ms)

    def with_revoked(self, *, now_ms: int) -> "Hub":
        """After it was revoked; the first time counts."""
        return self if self.revoked else dataclasses.replace(self, revoked_ms=now_ms)

    def _certificate(self, fingerprint: str) -> HubCertificate | None:
        return next((c for c in self.certificates if c.fingerprint == fingerprint), None)


def _state_after(index: int, connected: int, state: CertificateState) -> CertificateState:
    if index < connected:
        return "replaced"
    return "current" if index == connected else state


def _pruned(certificates: tuple[HubCertificate, ...]) -> tuple[HubCertificate, ...]:
    """At most MAX_CERTIFICATES, the newest and the current one: an agent that asks again and again
    is no reason to grow."""
    surplus = len(certificates) - MAX_CERTIFICATES
    if surplus <= 0:
        return certificates
    going = [each for each in certificates if each.state != "current"][:surplus]
    return tuple(each for each in certificates if each not in going)
