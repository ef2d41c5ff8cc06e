"""One Instance on this machine, from the sandboxed process to the record of its end."""

import asyncio
import dataclasses
import logging
import signal
import time
import uuid
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from sth_agent import program_words
from sth_agent.channels import Channel
from sth_agent.edge_poll import EdgePoll
from sth_agent.exits import outcome
from sth_agent.instance_record import InstanceFiles, InstanceRecord
from sth_agent.instance_streams import InstanceStreams
from sth_agent.output_position import OutputPosition
from sth_agent.runner_control import RunnerControl
from sth_agent.session import Session
from sth_agent.spawner_client import Exit, SpawnerClient, Started
from sth_agent.topic_output import Producer
from sth_protocol.errors import SthError
from sth_protocol.lifecycle import ENDED, Lifecycle
from sth_protocol.model import InstanceReport, StartSpec

logger = logging.getLogger(__name__)

# What a runner gets to obey an order before it is killed from outside.
OBEY_SECONDS = 3.0
# A runner says it after loading, and once more if the value that the program returned says
# otherwise. Each costs a file and a message.
MOST_READY = 2

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What every Instance of an agent uses. `changed` is called with each new report; `session`
    gives the present session, if there is one."""

    spawner: SpawnerClient
    poll: EdgePoll
    directory: Path
    changed: Callable[[InstanceReport], None]
    session: Callable[[], Session | None]


class Instance:
    """Made for a process that the spawner has started. `record`: what is known of it; of an adopted
    one that is what an earlier agent wrote."""

    def __init__(
        self, started: Started, record: InstanceRecord, around: Surroundings, *, adopted: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        self.spec = record.spec
        self.report = dataclasses.replace(
            record.report, process_id=started.pid, sandbox=started.sandbox
        )
        self.ended: asyncio.Future[None] = loop.create_future()
        self.loaded: asyncio.Future[None] = loop.create_future()
        self._around = around
        self._files = InstanceFiles(around.directory, self.spec.instance)
        self._lifecycle = Lifecycle(self.report.state)
        self._is_healthy = True
        self._was_kept_alive = False
        self._ready_count = 0
        self._error: Json = dict(self.report.error)
        self._provides = record.provides
        self._ending: asyncio.Task[None] | None = None
        self.streams = InstanceStreams(
            started,
            poll=around.poll,
            position=OutputPosition(self._files.position),
            output_type=record.output_type,
            is_taken_over=adopted,
            declared=self._declared,
            stdin_ended=self._stdin_ended,
        )
        self._control = RunnerControl(
            started.streams.control, heard=self._heard, silent=self._fell_silent
        )
        if adopted:
            self._take_over(started.path)
        else:
            self._send_start(started.path)

    # -- what the broker asks ------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        return self.report.state in ENDED

    def serve(self, channel: Channel) -> None:
        """Join a channel with one of the streams."""
        self.streams.serve(channel)

    def session_began(self, session: Session) -> None:
        """Topics are read and written over this session from now on."""
        if self.streams.topic_input is not None:
            self.streams.topic_input.session_began(session)
        if self.streams.topic_output is not None:
            self.streams.topic_output.session_began(session)

    def health(self) -> Json:
        return {
            "healthy": self._is_healthy and not self.has_ended,
            "process_id": self.report.process_id,
        }

    async def stop(self, *, timeout_ms: int, can_keepalive: bool) -> None:
        """Ask the program to end, and see to it unless it asks for more time; returns when it has
        ended or goes on."""
        if self.has_ended:
            return
        self._was_kept_alive = False
        self._move("stop")
        self._control.send("stop", timeout_ms=timeout_ms, can_keepalive=can_keepalive)
        if await self._ends_within(timeout_ms / 1000):
            return
        if not (can_keepalive and self._was_kept_alive):
            await self.kill()

    async def kill(self) -> None:
        """End the program at once; returns when it has ended."""
        if self.has_ended:
            return
        self._move("kill")
        self._control.send("kill")
        if not await self._ends_within(OBEY_SECONDS):
            await self._around.spawner.signal(self.spec.instance, signal.SIGKILL)
            await asyncio.shield(self.ended)

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait([self.ended], timeout=seconds)
        return self.ended.done()

    def close(self, *, remove: bool) -> None:
        """Let go of it: this process ends, or (`remove`) the Instance is forgotten."""
        if self._ending is not None:
            self._ending.cancel()
        self._control.close()
        self.streams.close(remove=remove)
        if remove:
            self._files.remove()

    # -- its end -------------------------------------------------------------------------------

    def exited(self, ended: Exit) -> None:
        """The spawner has seen the process end."""
        if self._ending is None and not self.has_ended:
            self._ending = asyncio.get_running_loop().create_task(self._finish(ended))

    async def _finish(self, ended: Exit) -> None:
        # The runner's last message and the program's last words are still on their way.
        await asyncio.gather(self.streams.drained(), self._control_drained())
        self._control.close()
        result = outcome(ended, state=self.report.state, error=self._error)
        self._lifecycle.apply(result.event)
        self._update(
            state=self._lifecycle.state,
            ended_ms=_now_ms(),
            exit_code=result.exit_code,
            reason=result.reason,
            error=self._error,
        )
        for future in (self.loaded, self.ended):
            if not future.done():
                future.set_result(None)

    async def _control_drained(self) -> None:
        await asyncio.wait([self._control.ended], timeout=OBEY_SECONDS)

    # -- what the runner says ------------------------------------------------------------------

    def _send_start(self, path: str) -> None:
        spec = self.spec
        self._control.send(
            "start",
            instance=spec.instance,
            path=path,
            main=spec.main,
            args=spec.args,
            config=spec.config,
            input_topic=spec.input_topic,
            output_topic=spec.output_topic,
            requires=None,
            language=spec.language,
        )

    def _take_over(self, path: str) -> None:
        if self.has_ended:
            self.streams.close_inputs()
            self.ended.set_result(None)
        else:
            if self.report.state == "starting":
                # It may not have been sent; a runner that has it takes no notice of another.
                self._send_start(path)
            self._control.resynchronise()
        if self.report.state != "starting":
            self.loaded.set_result(None)
            self._connect_input()
            self._connect_output()

    def _heard(self, message: Json) -> None:
        match message.get("type"):
            case "ready":
                self._ready(message)
            case "error":
                self._error = program_words.error(message)
            case "health":
                self._is_healthy = message.get("healthy") is True
            case "alive":
                self._was_kept_alive = True
            case "resynced":
                self.streams.input.resynced(message)
                if self.report.state == "starting":
                    # The runner answers once it has loaded the program: that it was ready is what
                    # the agent before has heard, and not written down.
                    self._ready({})

    def _fell_silent(self) -> None:
        """It has ended, which the spawner tells; or the program has broken its runner's socket, and
        whoever waits for it to be loaded would wait for ever."""
        if self.report.state == "starting":
            logger.info("Instance %s broke off before it was loaded", self.spec.instance)
            killing = self._around.spawner.signal(self.spec.instance, signal.SIGKILL)
            asyncio.ensure_future(killing).add_done_callback(_log_failure)

    def _ready(self, message: Json) -> None:
        if self._ready_count == MOST_READY:
            return
        self._ready_count += 1
        requires = program_words.declaration(message.get("requires"))
        provides = program_words.declaration(message.get("provides"))
        if self.report.state == "starting":
            self._move("ready", requires=requires, provides=provides)
        else:
            self._update(requires=requires, provides=provides)
        self._connect_input()
        if not self.loaded.done():
            self.loaded.set_result(None)

    def _declared(self, content_type: str, provides: Json) -> None:
        """The program has said what its output is, before the first byte of it."""
        self.streams.output_type = program_words.text(content_type, program_words.LONGEST_TYPE)
        self._provides = program_words.declaration(provides)
        self._save()
        # Not from inside the output's own work.
        asyncio.get_running_loop().call_soon(self._connect_output)

    def _connect_input(self) -> None:
        topic = self.spec.input_topic or str(self.report.requires.get("requires") or "")
        if not topic or self.streams.topic_input is not None or self.has_ended:
            return
        content_type = str(self.report.requires.get("contentType") or "")
        subscribed = self.streams.subscribe(topic, content_type, self.spec.instance)
        if session := self._around.session():
            subscribed.session_began(session)

    def _connect_output(self) -> None:
        topic = self.spec.output_topic or str(self._provides.get("provides") or "")
        content_type = str(self._provides.get("contentType") or self.streams.output_type)
        if not topic or not content_type or self.streams.topic_output is not None:
            return
        # A caller's own id may be used again, and its numbers begin at 0 again: later runs have
        # later epochs.
        epoch = max(self.spec.epoch, self.report.started_ms // 1000)
        producer = Producer(topic, content_type, _producer_of(self.spec.instance), epoch)
        published = self.streams.publish(producer)
        if session := self._around.session():
            published.session_began(session)

    def _stdin_ended(self) -> None:
        task = asyncio.ensure_future(self._around.spawner.close_stdin(self.spec.instance))
        task.add_done_callback(_log_failure)

    # -- its record ----------------------------------------------------------------------------

    def _move(self, event: Any, **changes: Any) -> None:
        self._lifecycle.apply(event)
        self._update(state=self._lifecycle.state, **changes)

    def _update(self, **changes: Any) -> None:
        changed = dataclasses.replace(self.report, **changes)
        if changed != self.report:
            self.report = changed
            self._save()
            self._around.changed(changed)

    def _save(self) -> None:
        try:
            self._files.save(
                InstanceRecord(self.spec, self.report, self.streams.output_type, self._provides)
            )
        except OSError as error:
            logger.error("Instance %s: its record is not written: %s", self.spec.instance, error)


def new_record(spec: StartSpec) -> InstanceRecord:
    """The record of an Instance that is about to be started."""
    report = InstanceReport(
        instance=spec.instance, sequence=spec.sequence, state="starting", started_ms=_now_ms()
    )
    return InstanceRecord(spec, report)


def _producer_of(instance: str) -> bytes:
    """16 bytes that name the Instance in a Topic's log."""
    try:
        return uuid.UUID(instance).bytes
    except ValueError:
        return sha256(instance.encode()).digest()[:16]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.INFO if isinstance(error, SthError) else logging.ERROR
        logger.log(level, "the spawner refused: %s", error)
