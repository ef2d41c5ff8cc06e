"""All Instances of this machine: started, adopted, ordered about, reported and forgotten."""

import asyncio
import logging
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sth_agent.channels import Channel
from sth_agent.edge_poll import EdgePoll
from sth_agent.instance import Instance, Surroundings, new_record
from sth_agent.instance_record import InstanceFiles, stored_instances
from sth_agent.sequences import Sequences
from sth_agent.session import Session
from sth_agent.spawner_client import Exit, Listed, SpawnerClient
from sth_protocol import control, ids
from sth_protocol.errors import (
    BadRequest,
    Conflict,
    InsufficientResources,
    NotFound,
    SessionLost,
    SthError,
    StorageFailed,
)
from sth_protocol.lifecycle import MAX_STOP_MS
from sth_protocol.model import InstanceReport, StartSpec, from_map, to_map

logger = logging.getLogger(__name__)

# For how long the streams of an ended Instance stay, unless the broker forgets it earlier.
RETENTION_SECONDS = 600.0
SYNC_RETRY_SECONDS = 5.0
# Of an Instance: seven streams, the second end of its control, its position, and one to spare. Of
# the agent itself: its sockets, its files, and those of a package that is being fetched.
DESCRIPTORS_OF_ONE = 10
DESCRIPTORS_OF_AGENT = 64

Json = dict[str, Any]


class Instances:
    """Answers the broker's requests about Instances. `directory`: of their files."""

    def __init__(self, spawner: SpawnerClient, directory: Path, temporary: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._spawner = spawner
        self._directory = directory
        self._session: Session | None = None
        self._poll = EdgePoll()
        self._sequences = Sequences(spawner, temporary, lambda: self._session)
        self._instances: dict[str, Instance] = {}
        self._starting: dict[str, asyncio.Task[Instance]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        # An exit may be told before whoever started the process, or takes it over, has looked at
        # the answer.
        self._early_exits: dict[str, Exit] = {}
        self._has_adopted = False
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = (descriptors - DESCRIPTORS_OF_AGENT) // DESCRIPTORS_OF_ONE
        self._tasks: set[asyncio.Task[None]] = set()
        # One list follows all the changes that could not be told.
        self._resyncing: asyncio.Task[None] | None = None
        self._around = Surroundings(
            spawner=spawner,
            poll=self._poll,
            directory=directory,
            changed=self._changed,
            session=lambda: self._session,
        )
        self.requests: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "instance.start": self._start,
            "instance.stop": self._stop,
            "instance.kill": self._kill,
            "instance.forget": self._forget,
            "instance.health": self._health,
        }

    def reports(self) -> list[InstanceReport]:
        """What is known of each."""
        return [each.report for each in self._instances.values()]

    def close(self) -> None:
        """Let go of all; they run on."""
        for task in (*self._starting.values(), *self._tasks):
            task.cancel()
        for instance in self._instances.values():
            instance.close(remove=False)
        self._poll.close()

    # -- the spawner's side --------------------------------------------------------------------

    async def adopt(self) -> None:
        """Take over what an earlier agent has left running, and forget what is no more."""
        listed = {each.instance: each for each in await self._spawner.list_instances()}
        for name in stored_instances(self._directory):
            if name not in listed:
                InstanceFiles(self._directory, name).remove()
        for each in listed.values():
            try:
                await self._adopt(each)
            except SthError as error:
                logger.error("Instance %s cannot be taken over: %s", each.instance, error)
        self._has_adopted = True
        strangers, self._early_exits = self._early_exits, {}
        for name in strangers:
            self._spawn(self._spawner.remove(name))

    async def _adopt(self, listed: Listed) -> None:
        record = InstanceFiles(self._directory, listed.instance).load()
        if record is None:
            logger.error("Instance %s has no record here: it is ended", listed.instance)
            await self._discard(listed)
            return
        started = await self._spawner.attach(listed.instance)
        instance = Instance(started, record, self._around, adopted=True)
        self._instances[listed.instance] = instance
        self._watch_end(instance)
        if ended := self._early_exits.pop(listed.instance, listed.exit):
            instance.exited(ended)
        logger.info("Instance %s is taken over", listed.instance)

    async def _discard(self, listed: Listed) -> None:
        if listed.running:
            await self._spawner.signal(listed.instance, signal.SIGKILL)
        else:
            await self._spawner.remove(listed.instance)

    def exited(self, name: str, ended: Exit) -> None:
        """The spawner has seen a process end."""
        instance = self._instances.get(name)
        if instance is not None:
            instance.exited(ended)
        elif name in self._starting or not self._has_adopted:
            self._early_exits[name] = ended
        else:
            self._spawn(self._spawner.remove(name))

    def spawner_gone(self) -> None:
        """The spawner has ended, and all processes with it."""
        for instance in self._instances.values():
            instance.exited(Exit(None, signal.SIGKILL, "the spawner has ended"))

    # -- the broker's side ---------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """Join a channel with the stream that it asks for."""
        name = channel.request.get("instance")
        instance = self._instances.get(name) if isinstance(name, str) else None
        if instance is None:
            channel.reset(NotFound(f"there is no Instance {str(name)[:40]} on this Hub"))
        else:
            instance.serve(channel)

    def session_began(self, session: Session) -> None:
        """The first thing in a session: what runs here."""
        self._session = session
        self._spawn(self._sync(session, self._ask_sync(session)))
        for instance in self._instances.values():
            instance.session_began(session)

    def _ask_sync(self, session: Session) -> list[Awaitable[Json]]:
        pages = control.pages([to_map(each) for each in self.reports()])
        return [
            session.ask("hub.sync", instances=page, page=number, pages=len(pages))
            for number, page in enumerate(pages)
        ]

    async def _sync(self, session: Session, asked: list[Awaitable[Json]]) -> None:
        while True:
            results = await asyncio.gather(*asked, return_exceptions=True)
            failures = [each for each in results if isinstance(each, BaseException)]
            if not failures or session.lost:
                return
            logger.warning("the broker did not take the list of Instances: %s", failures[0])
            await asyncio.sleep(SYNC_RETRY_SECONDS)
            if session.lost:
                return
            asked = self._ask_sync(session)

    def _changed(self, report: InstanceReport) -> None:
        session = self._session
        if session is None or session.lost:
            return
        try:
            session.notify("instance.state", report=to_map(report))
        except SthError as error:
            # Too much waits for a broker that is away: the next list tells all.
            logger.warning("a change is not told: %s", error)
            if self._resyncing is None or self._resyncing.done():
                self._resyncing = self._spawn(self._sync_later(session))

    async def _sync_later(self, session: Session) -> None:
        await asyncio.sleep(SYNC_RETRY_SECONDS)
        if not session.lost:
            try:
                await self._sync(session, self._ask_sync(session))
            except SthError:
                await self._sync_later(session)

    # -- requests ------------------------------------------------------------------------------

    async def _start(self, fields: Json) -> Json:
        spec = from_map(StartSpec, fields.get("spec"))
        ids.check_instance_id(spec.instance)
        ids.check_sha256(spec.sha256)
        known = self._instances.get(spec.instance)
        if spec.instance in self._starting or (known is not None and not known.has_ended):
            raise Conflict(f"Instance {spec.instance} is on this Hub already")
        self._check_room()
        task = asyncio.create_task(self._started(spec, known))
        self._starting[spec.instance] = task
        task.add_done_callback(lambda _: self._starting.pop(spec.instance, None))
        # The session may end meanwhile; a start that has begun is brought to its end.
        instance = await asyncio.shield(task)
        await asyncio.shield(instance.loaded)
        return {"report": to_map(instance.report)}

    def _check_room(self) -> None:
        # A descriptor that cannot be received would cost us the spawner, and all Instances.
        if len(self._instances) + len(self._starting) >= self._most:
            raise InsufficientResources(
                f"this Hub has open files for {self._most} Instances, and as many are on it",
                hint="remove ended ones, or raise the agent's limit of open files (LimitNOFILE=)",
            )

    async def _started(self, spec: StartSpec, before: Instance | None) -> Instance:
        if before is not None:
            await self._remove(before)
        await self._sequences.ensure(spec.sha256)
        record = new_record(spec)
        files = InstanceFiles(self._directory, spec.instance)
        try:
            # Before there is a process that nobody would know.
            files.create(record)
        except OSError as error:
            raise StorageFailed(f"the Instance has no room on disk: {error.strerror}") from None
        try:
            started = await self._spawner.start(
                instance=spec.instance,
                sha256=spec.sha256,
                language=spec.language,
                isolation=spec.isolation,
                network=spec.network,
                limits=spec.limits,
            )
        except BaseException:
            files.remove()
            raise
        instance = Instance(started, record, self._around, adopted=False)
        self._instances[spec.instance] = instance
        self._watch_end(instance)
        if early := self._early_exits.pop(spec.instance, None):
            instance.exited(early)
        return instance

    async def _stop(self, fields: Json) -> Json:
        instance = self._known(fields)
        timeout_ms = fields.get("timeout_ms")
        if not isinstance(timeout_ms, int) or not 0 <= timeout_ms <= MAX_STOP_MS:
            raise BadRequest(f"timeout_ms is a whole number from 0 to {MAX_STOP_MS}")
        can_keepalive = fields.get("can_keepalive") is True
        await instance.stop(timeout_ms=timeout_ms, can_keepalive=can_keepalive)
        return {"report": to_map(instance.report)}

    async def _kill(self, fields: Json) -> Json:
        instance = self._known(fields)
        await instance.kill()
        return {"report": to_map(instance.report)}

    async def _forget(self, fields: Json) -> Json:
        instance = self._instances.get(str(fields.get("instance")))
        if instance is not None:
            if not instance.has_ended:
                raise Conflict(f"Instance {instance.spec.instance} still runs")
            await self._remove(instance)
        return {}

    async def _health(self, fields: Json) -> Json:
        return self._known(fields).health()

    def _known(self, fields: Json) -> Instance:
        instance = self._instances.get(str(fields.get("instance")))
        if instance is None:
            raise NotFound(f"there is no Instance {str(fields.get('instance'))[:40]} on this Hub")
        return instance

    async def stop_all(self, grace: float) -> None:
        """Stop every Instance that runs; returns when all have ended."""
        running = [each for each in self._instances.values() if not each.has_ended]
        await asyncio.gather(
            *(each.stop(timeout_ms=int(grace * 1000), can_keepalive=False) for each in running),
            return_exceptions=True,
        )

    # -- the end -------------------------------------------------------------------------------

    def _watch_end(self, instance: Instance) -> None:
        def ended(_: "asyncio.Future[None]") -> None:
            self._expire_later(instance)

        instance.ended.add_done_callback(ended)

    def _expire_later(self, instance: Instance) -> None:
        # One that is forgotten before must not stay in memory until then.
        if self._instances.get(instance.spec.instance) is instance:
            self._expiries[instance.spec.instance] = self._loop.call_later(
                RETENTION_SECONDS, self._expire, instance
            )

    def _expire(self, instance: Instance) -> None:
        if self._session is None or self._session.lost:
            # Nobody has heard of its end yet.
            self._expire_later(instance)
        else:
            self._spawn(self._remove(instance))

    async def _remove(self, instance: Instance) -> None:
        name = instance.spec.instance
        if self._instances.get(name) is instance:
            del self._instances[name]
            if expiry := self._expiries.pop(name, None):
                expiry.cancel()
        instance.close(remove=True)
        try:
            await self._spawner.remove(name)
        except NotFound:
            pass

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(_quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except SessionLost:
        pass
    except SthError as error:
        logger.warning("%s", error.message)
