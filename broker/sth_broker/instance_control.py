"""What is asked of a Hub about its Instances: start, stop, kill, health, forget."""

import logging
import uuid
from dataclasses import dataclass, field
from typing import Any

from sth_broker import scheduler
from sth_broker.background import Background
from sth_broker.gateway import Gateway
from sth_broker.hub_link import HubLink
from sth_broker.hub_views import HubViews
from sth_broker.instance_record import Instance
from sth_broker.instances import InstanceRegistry, now_ms
from sth_broker.sequences import Sequence
from sth_protocol import codec
from sth_protocol.errors import (
    BadFrame,
    BadRequest,
    Conflict,
    HubOffline,
    InstanceFailed,
    SessionLost,
    SthError,
    StorageFailed,
    TimedOut,
    TooLarge,
)
from sth_protocol.model import InstanceReport, Json, StartSpec, from_map, to_map

logger = logging.getLogger(__name__)

# A control message is at most 64 KiB; what surrounds the StartSpec in it is small.
MAX_SPEC_BYTES = 60 * 1024
# How long a Hub may take beyond what a program was given to stop.
STOP_MARGIN = 30.0
# After these nobody knows what the Hub did; its next sync tells.
_UNCERTAIN = (HubOffline, SessionLost, TimedOut)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What the API's caller asks for. `hub`: id or name; empty: any."""

    args: list[Any] = field(default_factory=list)
    config: Json = field(default_factory=dict)
    input_topic: str = ""
    output_topic: str = ""
    limits: Json = field(default_factory=dict)
    instance: str = ""
    hub: str = ""


class InstanceControl:
    """Carries out what the API asks for at the Hub that it concerns."""

    def __init__(
        self,
        *,
        registry: InstanceRegistry,
        gateway: Gateway,
        hubs: HubViews,
        background: Background,
        start_timeout: float,
    ) -> None:
        self._registry = registry
        self._gateway = gateway
        self._hubs = hubs
        self._background = background
        self._start_timeout = start_timeout
        self._starting: set[str] = set()

    @property
    def starting(self) -> frozenset[str]:
        """Ids of the Instances whose Hub has not yet answered the request to start them."""
        return frozenset(self._starting)

    def link(self, instance: Instance) -> HubLink:
        """The link to its Hub; HubOffline if there is none now."""
        link = self._gateway.hub(instance.hub)
        if link is None:
            raise HubOffline(
                f"Hub {instance.hub_name} is offline",
                hint="what runs there goes on; try again when it is back",
            )
        return link

    async def start(self, sequence: Sequence, request: StartRequest) -> Instance:
        """Place, record and start an Instance; it is running, or has ended, when this returns."""
        hub = scheduler.choose(
            self._hubs.states(sequence.space),
            scheduler.PlacementRequest(language=sequence.language, hub=request.hub),
        )
        instance = Instance(
            instance=request.instance or str(uuid.uuid4()),
            space=sequence.space,
            hub=hub.hub_id,
            hub_name=hub.name,
            sequence=sequence.public_json(),
            created_ms=now_ms(),
            args=request.args,
            config=request.config,
            input_topic=request.input_topic,
            output_topic=request.output_topic,
        )
        spec = _checked_spec(instance, sequence, request)
        link = self.link(instance)
        await self._replace_ended(instance)
        self._registry.add(instance)
        # The caller may leave; the start goes on.
        return await self._background.shielded(self._start(link, instance, spec))

    async def _start(self, link: HubLink, instance: Instance, spec: Json) -> Instance:
        space, name = instance.space, instance.instance
        self._starting.add(name)
        try:
            self._registry.apply(space, name, "placed")
            changes = self._registry.changes
            reply = await link.request("instance.start", timeout=self._start_timeout, spec=spec)
            # Written meanwhile: the record must be safe before the caller hears, not the Hub.
            await self._registry.durable(changes)
            self._take_report(link, reply)
        except _UNCERTAIN:
            raise
        except StorageFailed as error:
            self._background.start(self._give_up(link, name), name="end an unrecorded Instance")
            self._registry.fail(space, name, error.to_wire(), reason=error.message)
            raise
        except SthError as error:
            self._registry.fail(space, name, error.to_wire(), reason=error.message)
            raise
        finally:
            self._starting.discard(name)
        started = self._registry.get(space, name)
        if started.state == "errored":
            raise InstanceFailed(
                str(started.error.get("message") or started.reason or "the program failed"),
                hint=f"`sth inst show {name}` shows where",
            )
        return started

    async def stop(
        self, space: str, instance: str, *, timeout_ms: int, can_keepalive: bool
    ) -> Instance:
        """Ask a program to end; the Instance as it is when it has, or when it takes too long."""
        record = self._registry.get(space, instance)
        if record.ended:
            return record
        link = self.link(record)
        self._registry.apply(space, instance, "stop")
        asked = link.request(
            "instance.stop",
            timeout=timeout_ms / 1000 + STOP_MARGIN,
            instance=instance,
            timeout_ms=timeout_ms,
            can_keepalive=can_keepalive,
        )
        return await self._background.shielded(self._until_ended(link, record, asked))

    async def kill(self, space: str, instance: str, *, remove: bool) -> Instance:
        """End a program at once. `remove`: its streams and its record go too."""
        record = self._registry.get(space, instance)
        if record.ended:
            if not remove:
                raise BadRequest("Instance not running", hint=f"it has {record.state}")
            await self.forget(record)
            self._registry.remove(space, instance)
            return record
        link = self.link(record)
        self._registry.apply(space, instance, "kill")
        asked = link.request("instance.kill", timeout=STOP_MARGIN, instance=instance)
        ended = await self._background.shielded(self._until_ended(link, record, asked))
        if remove and ended.ended:
            await self.forget(ended)
            self._registry.remove(space, instance)
        return ended

    async def health(self, space: str, instance: str) -> Json:
        """`{healthy, processId}`."""
        record = self._registry.get(space, instance)
        if record.ended:
            return {"healthy": False, "processId": record.process_id}
        reply = await self.link(record).request("instance.health", instance=instance)
        process_id = reply.get("process_id")
        return {
            "healthy": reply.get("healthy") is True,
            "processId": process_id if type(process_id) is int else record.process_id,
        }

    async def forget(self, instance: Instance) -> None:
        """Let the Hub drop the streams of an ended Instance. Its next sync shows one that was
        away, and the request is made again."""
        link = self._gateway.hub(instance.hub)
        if link is None:
            return
        try:
            await link.request("instance.forget", instance=instance.instance)
        except SthError as error:
            logger.info("%s cannot forget %s: %s", instance.hub_name, instance.instance, error)

    async def _give_up(self, link: HubLink, instance: str) -> None:
        await link.request("instance.kill", instance=instance)
        await link.request("instance.forget", instance=instance)

    async def _replace_ended(self, instance: Instance) -> None:
        """Make room for a caller's own id that an ended Instance still holds."""
        before = self._registry.find(instance.space, instance.instance)
        if before is None:
            return
        if not before.ended:
            raise Conflict(
                "Instance with a given ID already exists", hint="leave out the id to get a new one"
            )
        await self.forget(before)
        self._registry.remove(instance.space, instance.instance)

    async def _until_ended(self, link: HubLink, record: Instance, asked: Any) -> Instance:
        try:
            self._take_report(link, await asked)
        except TimedOut:
            logger.info("%s takes long to end", record.instance)
        return self._registry.get(record.space, record.instance)

    def _take_report(self, link: HubLink, reply: Json) -> None:
        report = from_map(InstanceReport, reply.get("report"))
        self._registry.report(link.space, link.hub_id, report)


def _checked_spec(instance: Instance, sequence: Sequence, request: StartRequest) -> Json:
    spec = StartSpec(
        instance=instance.instance,
        sequence=sequence.id,
        sha256=sequence.sha256,
        language=sequence.language,
        main=sequence.main,
        args=request.args,
        config=request.config,
        input_topic=request.input_topic,
        output_topic=request.output_topic,
        limits=request.limits,
    )
    try:
        mapped = to_map(spec)
        packed = codec.pack({"spec": mapped})
    except (BadFrame, RecursionError):
        raise _not_for_a_hub() from None
    size = len(packed)
    if size > MAX_SPEC_BYTES:
        raise TooLarge(
            f"args and appConfig take {size} bytes; at most {MAX_SPEC_BYTES} are sent to a Hub",
            hint="pass large values as input",
        )
    try:
        # As the Hub will: what it would refuse must not leave a record.
        codec.unpack(packed)
    except BadFrame:
        raise _not_for_a_hub() from None
    return mapped


def _not_for_a_hub() -> BadRequest:
    return BadRequest(
        "args, appConfig or limits cannot be sent to a Hub",
        hint="use JSON values, integers of at most 64 bits, and little nesting",
    )
