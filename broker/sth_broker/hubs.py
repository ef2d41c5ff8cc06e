"""The Hubs of all Spaces: their records, their names, their certificates, and who is online.

The registry is the only writer of `hub/` records, so it keeps what it has read: an agent that dials
is checked without asking the store.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator

from sth_broker.audit import AuditLog
from sth_broker.background import Background
from sth_broker.gateway import Gateway
from sth_broker.hub_link import HubLink
from sth_broker.hub_record import Hub, Verdict
from sth_broker.pki import IssuedCertificate
from sth_broker.store.interface import Records
from sth_protocol.errors import Conflict, NotFound
from sth_protocol.ids import check_hub_name, label_from
from sth_protocol.model import HubInfo

logger = logging.getLogger(__name__)

_MAX_LABEL = 63


class HubRegistry:
    """`load` it before anything else, and `close` it before the store."""

    def __init__(
        self,
        records: Records,
        audit: AuditLog,
        gateway: Gateway,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._audit = audit
        self._gateway = gateway
        self._clock = clock
        self._background = Background()
        self._hubs: dict[str, Hub] = {}
        self._by_fingerprint: dict[str, str] = {}
        self._reserved: set[tuple[str, str]] = set()
        gateway.on_offline(self._note_offline)

    async def load(self) -> None:
        """Read all records."""
        for record in await self._records.list("hub/"):
            self._keep(Hub.from_value(record.value))

    async def close(self) -> None:
        """Returns when what was noted is stored."""
        await self._background.close(grace=5.0)

    # -- reading -------------------------------------------------------------------------------

    def list(self, space: str, *, revoked: bool = False) -> list[Hub]:
        """The Hubs of a Space by name; with `revoked`, those too that were taken back."""
        found = [
            each
            for each in self._hubs.values()
            if each.space == space and (revoked or not each.revoked)
        ]
        return sorted(found, key=lambda each: (each.name, each.created_ms))

    def get(self, space: str, hub: str) -> Hub:
        """A Hub by its id or its name. NotFound if the Space has none, whoever else may."""
        found = self._hubs.get(hub)
        if found is not None and found.space == space:
            return found
        for each in self.list(space):
            if each.name == hub:
                return each
        raise NotFound(f"there is no Hub {hub[:80]}", hint="`sth hub ls` shows them")

    def find(self, hub_id: str) -> Hub | None:
        """A Hub by its id, in whatever Space: for those who have proved to be it."""
        return self._hubs.get(hub_id)

    def link(self, hub_id: str) -> HubLink | None:
        """Its link; None if it is offline."""
        return self._gateway.hub(hub_id)

    def by_certificate(self, fingerprint: str) -> Hub | None:
        """Whose certificate that is, whether or not it may still be used."""
        hub_id = self._by_fingerprint.get(fingerprint)
        return self._hubs.get(hub_id) if hub_id is not None else None

    def judge(self, fingerprint: str) -> Verdict:
        """What to tell one who asks about a certificate."""
        hub = self.by_certificate(fingerprint)
        return "unknown" if hub is None else hub.judge(fingerprint, now=self._clock())

    # -- names ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reserve_name(self, space: str, wished: str, *, stem: str) -> Iterator[str]:
        """A name that nobody else in the Space gets meanwhile: `wished`, or one made of `stem`, if
        nothing is wished. Conflict if `wished` is taken; a revoked Hub holds no name."""
        name = check_hub_name(wished) if wished else self._free_name(space, label_from(stem))
        if self._is_taken(space, name):
            raise Conflict(
                f"there is a Hub {name} already",
                hint=f"choose another name, or take that one back: `sth hub revoke {name}`",
            )
        self._reserved.add((space, name))
        try:
            yield name
        finally:
            self._reserved.discard((space, name))

    def _free_name(self, space: str, stem: str) -> str:
        name, number = stem, 1
        while self._is_taken(space, name):
            number += 1
            suffix = f"-{number}"
            name = stem[: _MAX_LABEL - len(suffix)].rstrip("-") + suffix
        return name

    def _is_taken(self, space: str, name: str) -> bool:
        if (space, name) in self._reserved:
            return True
        return any(each.name == name for each in self.list(space))

    # -- changes -------------------------------------------------------------------------------

    async def add(
        self, *, hub_id: str, space: str, name: str, info: HubInfo, issued: IssuedCertificate
    ) -> Hub:
        """Record a machine that has joined."""
        hub = Hub(
            hub_id=hub_id, space=space, name=name, created_ms=self._now_ms(), info=info
        ).with_issued(issued)
        await self._records.put(_key(hub_id), hub.to_value(), expected=0)
        self._keep(hub)
        return hub

    async def add_certificate(self, hub_id: str, issued: IssuedCertificate) -> Hub:
        """Allow one more certificate of the Hub, before it is handed out."""
        return await self._update(hub_id, lambda hub: hub.with_issued(issued))

    async def admit(self, hub_id: str, fingerprint: str, info: HubInfo) -> Hub:
        """A link begins with that certificate: from now on those before it are refused. Revoked,
        CertificateExpired."""

        def connected(hub: Hub) -> Hub:
            hub.check(fingerprint, now=self._clock())
            return hub.with_connected(fingerprint, info, now_ms=self._now_ms())

        return await self._update(hub_id, connected)

    async def revoke(self, space: str, hub: str, *, by: str) -> Hub:
        """Take back a Hub, by its id or name: its record first, then the audit, then its link. It
        is refused from then on. NotFound."""
        found = self.get(space, hub)
        revoked = await self._update(
            found.hub_id, lambda each: each.with_revoked(now_ms=self._now_ms())
        )
        try:
            await self._audit.record(
                "hub.revoke", space=space, by=by, subject=found.hub_id, name=found.name
            )
        finally:
            # An audit that cannot be written must not leave a revoked machine connected.
            self._gateway.cut(found.hub_id)
        logger.info("Hub %s is revoked", found.name)
        return revoked

    def _note_offline(self, link: HubLink) -> None:
        hub = self._hubs.get(link.hub_id)
        if hub is not None:
            self._background.start(self._save_seen(link.hub_id), name="note when a Hub was seen")

    async def _save_seen(self, hub_id: str) -> None:
        now_ms = self._now_ms()
        await self._update(hub_id, lambda hub: dataclasses.replace(hub, last_seen_ms=now_ms))

    async def _update(self, hub_id: str, change: Callable[[Hub], Hub]) -> Hub:
        key = _key(hub_id)
        while True:
            record = await self._records.get(key)
            if record is None:
                raise NotFound(f"there is no Hub {hub_id}")
            before = Hub.from_value(record.value)
            after = change(before)
            try:
                if after != before:
                    await self._records.put(key, after.to_value(), expected=record.revision)
            except Conflict:
                # Another change of the same Hub came first.
                continue
            self._keep(after)
            return after

    def _keep(self, hub: Hub) -> None:
        for certificate in hub.certificates:
            self._by_fingerprint[certificate.fingerprint] = hub.hub_id
        self._hubs[hub.hub_id] = hub

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _key(hub_id: str) -> str:
    return f"hub/{hub_id}"
