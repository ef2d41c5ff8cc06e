"""What Hubs say of their Instances, and what follows from it."""

import asyncio
import logging
from weakref import WeakKeyDictionary

from sth_broker import instance_record
from sth_broker.background import Background
from sth_broker.hub_link import HubLink
from sth_broker.hubs import HubRegistry
from sth_broker.instance_control import InstanceControl
from sth_broker.instance_record import Instance
from sth_broker.instances import InstanceRegistry, now_ms
from sth_broker.reconcile import (
    Adopt,
    Expire,
    Forget,
    Instruction,
    Kill,
    KillAgain,
    Lose,
    Update,
    decide,
    reconcile,
)
from sth_broker.sequences import SequenceRegistry
from sth_protocol.control import Pages
from sth_protocol.errors import BadFrame, BadName, SthError
from sth_protocol.ids import check_instance_id
from sth_protocol.model import InstanceReport, Json, from_map

logger = logging.getLogger(__name__)

# Space, id, and the time of its creation: an id may be used again.
Key = tuple[str, str, int]


class HubSync:
    """Keeps the records true to what the Hubs report. `retention`: seconds for which the streams of
    an ended Instance stay at its Hub."""

    def __init__(
        self,
        *,
        registry: InstanceRegistry,
        control: InstanceControl,
        sequences: SequenceRegistry,
        hubs: HubRegistry,
        background: Background,
        retention: float,
    ) -> None:
        self._registry = registry
        self._control = control
        self._sequences = sequences
        self._hubs = hubs
        self._background = background
        self._retention = retention
        self._pages: WeakKeyDictionary[HubLink, Pages] = WeakKeyDictionary()
        self._expiring: dict[Key, asyncio.TimerHandle] = {}
        registry.on_ended(self._expire)

    def close(self) -> None:
        for handle in self._expiring.values():
            handle.cancel()

    async def on_sync(self, link: HubLink, message: Json) -> Json:
        """A page of the list of all Instances of the Hub; the last one is acted on."""
        pages = self._pages.setdefault(link, Pages())
        listed = pages.add(message.get("page"), message.get("pages"), message.get("instances"))
        if listed is None:
            return {}
        instructions = reconcile(
            hub=link.hub_id,
            reports=[_report_from(each) for each in listed],
            known=self._registry.known(link.space),
            sequences=self._sequences.ids(link.space),
            starting=self._control.starting,
        )
        for instruction in instructions:
            self._carry_out(link, instruction)
        return {}

    def on_state(self, link: HubLink, message: Json) -> None:
        """Something has changed about one Instance."""
        report = _report_from(message.get("report"))
        record = self._registry.find(link.space, report.instance)
        sequences = self._sequences.ids(link.space)
        for instruction in decide(report, record, hub=link.hub_id, sequences=sequences):
            self._carry_out(link, instruction)

    def _carry_out(self, link: HubLink, instruction: Instruction) -> None:
        match instruction:
            case Update(report):
                self._registry.report(link.space, link.hub_id, report)
            case Adopt(report):
                self._registry.put(self._adopted(link, report))
            case Lose(identity):
                logger.warning("Hub %s no longer knows Instance %s", link.hub_id, identity)
                self._registry.lose(link.space, identity)
            case Kill(identity):
                logger.warning("Instance %s must not run on Hub %s", identity, link.hub_id)
                self._background.start(_end_there(link, identity), name="end a stray Instance")
            case KillAgain(identity):
                logger.warning("Instance %s is to be killed still", identity)
                self._background.start(_kill_there(link, identity), name="kill an Instance again")
            case Forget(identity):
                self._background.start(_forget_there(link, identity), name="forget an Instance")
            case Expire(identity):
                self._expire(self._registry.get(link.space, identity))

    def _adopted(self, link: HubLink, report: InstanceReport) -> Instance:
        sequence = self._sequences.get(link.space, report.sequence)
        return instance_record.adopted(
            report,
            space=link.space,
            hub=link.hub_id,
            hub_name=self._hubs.get(link.space, link.hub_id).name,
            sequence=sequence.public_json(),
            now_ms=now_ms(),
        )

    def _expire(self, instance: Instance) -> None:
        """Let the streams of an ended Instance go after their time. The clock is ours, and begins
        again with the broker: rather too late than too early."""
        key = (instance.space, instance.instance, instance.created_ms)
        if key not in self._expiring:
            loop = asyncio.get_running_loop()
            self._expiring[key] = loop.call_later(self._retention, self._forget, key, instance)

    def _forget(self, key: Key, instance: Instance) -> None:
        self._expiring.pop(key, None)
        record = self._registry.find(instance.space, instance.instance)
        if record is not None and record.created_ms != instance.created_ms:
            return
        self._background.start(self._control.forget(instance), name="forget an Instance")


def _report_from(value: object) -> InstanceReport:
    """BadFrame also for an id that no broker gives: it becomes a part of a record's key."""
    report = from_map(InstanceReport, value)
    try:
        check_instance_id(report.instance)
    except BadName as error:
        raise BadFrame(f"InstanceReport.instance: {error.message}") from None
    return report


async def _end_there(link: HubLink, identity: str) -> None:
    await link.request("instance.kill", instance=identity)
    await link.request("instance.forget", instance=identity)


async def _kill_there(link: HubLink, identity: str) -> None:
    """Its end is told by its state."""
    try:
        await link.request("instance.kill", instance=identity)
    except SthError as error:
        logger.info("Hub %s cannot kill %s: %s", link.hub_id, identity, error)


async def _forget_there(link: HubLink, identity: str) -> None:
    try:
        await link.request("instance.forget", instance=identity)
    except SthError as error:
        logger.info("Hub %s cannot forget %s: %s", link.hub_id, identity, error)
