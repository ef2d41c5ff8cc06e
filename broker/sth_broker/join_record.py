"""What the broker remembers of one join token, and whether it still lets a machine in. Pure."""

import dataclasses
import datetime
from dataclasses import dataclass

from sth_protocol.errors import JoinTokenSpent
from sth_protocol.model import Json, from_map, to_map

# A reply that was lost on a bad link can be asked for again for so long, by the same key.
RETRY_SECONDS = 600.0
# Of a token that many machines use at once; the record is written anew for each of them.
MAX_RECENT = 64


@dataclass(frozen=True, slots=True)
class Use:
    """A machine that was let in a short time ago. `key`: SHA-256 of its public key, hex; the rest
    is what it was answered."""

    key: str
    hub_id: str
    certificate: str
    fingerprint: str
    serial: str
    expires: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class JoinRecord:
    """Times in ms since 1970, 0: never. `uses` 0: any number; `recent`: uses that may be asked for
    again; `last_hub`: the id of the Hub that came last."""

    space: str
    name: str
    secret_hmac: str
    created_ms: int
    expires_ms: int
    uses: int
    revoked_ms: int = 0
    used: int = 0
    last_used_ms: int = 0
    last_hub: str = ""
    recent: tuple[Use, ...] = ()

    def to_value(self) -> Json:
        """The map that is stored."""
        value = to_map(self)
        value["recent"] = list(value["recent"])
        return value

    @classmethod
    def from_value(cls, value: Json) -> "JoinRecord":
        """The record of a stored map."""
        recent = tuple(from_map(Use, each) for each in value["recent"])
        return cls(**{**value, "recent": recent})

    def use_of(self, key: str, *, now_ms: int) -> Use | None:
        """The use of that key, if it was a moment ago."""
        oldest = now_ms - RETRY_SECONDS * 1000
        return next((u for u in self.recent if u.key == key and u.at_ms > oldest), None)

    def check_usable(self, token_id: str, *, now_ms: int) -> None:
        """JoinTokenSpent says why it lets nobody in, and since when."""
        if self.revoked_ms:
            raise JoinTokenSpent(f"the join token {token_id} was revoked at {_at(self.revoked_ms)}")
        if self.expires_ms and now_ms >= self.expires_ms:
            raise JoinTokenSpent(f"the join token {token_id} expired at {_at(self.expires_ms)}")
        if self.uses and self.used >= self.uses:
            times = "once" if self.uses == 1 else f"{self.uses} times"
            raise JoinTokenSpent(
                f"the join token {token_id} could be used {times} and was, "
                f"the last time at {_at(self.last_used_ms)}"
            )

    def with_use(self, use: Use) -> "JoinRecord":
        """After it let a machine in."""
        oldest = use.at_ms - RETRY_SECONDS * 1000
        recent = [each for each in self.recent if each.at_ms > oldest]
        return dataclasses.replace(
            self,
            used=self.used + 1,
            last_used_ms=use.at_ms,
            last_hub=use.hub_id,
            recent=(*recent[1 - MAX_RECENT :], use),
        )


def _at(milliseconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")
