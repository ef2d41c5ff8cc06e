"""The Instances of all Spaces: their records, and what Hubs report of them.

Records live in memory and are written behind; a Hub's report after a restart brings back what a
crash of the broker kept from the disk. Requests that reach a Hub are in instance_control."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from sth_broker import instance_record
from sth_broker.instance_record import Instance
from sth_broker.record_writer import RecordWriter
from sth_broker.store.interface import Records
from sth_protocol.errors import BadFrame, Conflict, NotFound
from sth_protocol.lifecycle import Event
from sth_protocol.model import InstanceReport, Json

logger = logging.getLogger(__name__)

EndedListener = Callable[[Instance], None]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class InstanceRegistry:
    """Records by Space and id. Every change goes through `put` and is written soon after."""

    def __init__(self, *, records: Records, max_ended: int) -> None:
        self._records = records
        self._writer = RecordWriter(records)
        self._spaces: defaultdict[str, dict[str, Instance]] = defaultdict(dict)
        self._max_ended = max_ended
        self._listeners: list[EndedListener] = []

    async def load(self) -> None:
        """Read all records; one that cannot be read is left alone and logged."""
        for record in await self._records.list("instance/"):
            try:
                instance = instance_record.from_record(record.value)
            except BadFrame as error:
                logger.error("record %s cannot be read: %s", record.key, error)
                continue
            self._spaces[instance.space][instance.instance] = instance

    async def close(self) -> None:
        await self._writer.close()

    def on_ended(self, listener: EndedListener) -> None:
        """Call `listener` with every Instance that ends from now on."""
        self._listeners.append(listener)

    def get(self, space: str, instance: str) -> Instance:
        """NotFound if it is not there, or not in this Space."""
        found = self.find(space, instance)
        if found is None:
            raise NotFound(f"Instance {instance[:80]} not found", hint="`sth ps` shows them")
        return found

    def find(self, space: str, instance: str) -> Instance | None:
        return self._spaces.get(space, {}).get(instance)

    def known(self, space: str) -> dict[str, Instance]:
        """All records of a Space by id."""
        return dict(self._spaces.get(space, {}))

    def live(self, space: str) -> Iterable[Instance]:
        """Those that have not ended."""
        return [each for each in self._spaces.get(space, {}).values() if not each.ended]

    def live_of(self, space: str, sequence: str) -> list[str]:
        """Ids of the Instances of a Sequence that have not ended."""
        return [each.instance for each in self.live(space) if each.sequence_id == sequence]

    def add(self, instance: Instance) -> None:
        """A new record; Conflict if its id is taken."""
        if self.find(instance.space, instance.instance) is not None:
            raise Conflict(
                "Instance with a given ID already exists", hint="leave out the id to get a new one"
            )
        self.put(instance)

    def put(self, instance: Instance) -> None:
        """Take over a changed record and tell the listeners if it has just ended."""
        before = self._spaces[instance.space].get(instance.instance)
        if before == instance:
            return
        self._spaces[instance.space][instance.instance] = instance
        self._writer.put(instance.key, instance_record.to_record(instance))
        if instance.ended and (before is None or not before.ended):
            self._prune(instance.space)
            for listener in self._listeners:
                listener(instance)

    def remove(self, space: str, instance: str) -> None:
        """Forget a record."""
        if self._spaces.get(space, {}).pop(instance, None) is not None:
            self._writer.delete(instance_record.record_key(space, instance))

    @property
    def changes(self) -> int:
        """How many there have been until now."""
        return self._writer.changes

    async def durable(self, changes: int | None = None) -> None:
        """Return when the first `changes`, by default all until now, are on disk."""
        await self._writer.durable(changes)

    def apply(self, space: str, instance: str, event: Event) -> Instance:
        """Move an Instance on; InvalidTransition if its state does not allow it."""
        changed = instance_record.advance(self.get(space, instance), event)
        self.put(changed)
        return changed

    def report(self, space: str, hub: str, report: InstanceReport) -> Instance | None:
        """Take over what a Hub says of one of its Instances; None if it is not its own."""
        record = self.find(space, report.instance)
        if record is None or record.hub != hub:
            return None
        changed = instance_record.with_report(record, report, now_ms=now_ms())
        self.put(changed)
        return changed

    def fail(self, space: str, instance: str, error: Json, *, reason: str) -> None:
        """End an Instance for a reason that its Hub does not report; nothing if it has ended."""
        record = self.find(space, instance)
        if record is not None and not record.ended:
            self.put(instance_record.failed(record, error, reason=reason, now_ms=now_ms()))

    def lose(self, space: str, instance: str) -> None:
        """End an Instance that its Hub no longer knows."""
        record = self.find(space, instance)
        if record is not None and not record.ended:
            self.put(instance_record.lost(record, now_ms=now_ms()))

    def abandon(self, space: str, hub: str) -> None:
        """End all Instances of a Hub that was revoked and will never tell of them."""
        for record in list(self.live(space)):
            if record.hub == hub:
                reason = f"its Hub {record.hub_name} was revoked"
                self.put(instance_record.failed(record, {}, reason=reason, now_ms=now_ms()))

    def _prune(self, space: str) -> None:
        ended = [each for each in self._spaces[space].values() if each.ended]
        ended.sort(key=lambda each: each.ended_ms)
        for instance in ended[: max(0, len(ended) - self._max_ended)]:
            self.remove(space, instance.instance)
