"""The streams of one Instance, from its descriptors to whoever reads and feeds them."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from sth_agent.channels import Channel
from sth_agent.edge_poll import EdgePoll
from sth_agent.feeds import Feeder
from sth_agent.output import Output
from sth_agent.output_position import OutputPosition
from sth_agent.output_reader import OutputReader
from sth_agent.program_input import ProgramInput, StandardInput
from sth_agent.ring_stream import RingStream
from sth_agent.spawner_client import Started
from sth_agent.stream_writer import Done
from sth_agent.topic_input import TopicInput
from sth_agent.topic_output import Producer, TopicOutput
from sth_protocol.errors import BadRequest, Conflict, StreamFailed

# The descriptors of a process that has ended are closed by the kernel within an instant.
DRAIN_SECONDS = 5.0
LOG_TYPE = "application/x-ndjson"
BYTES_TYPE = "application/octet-stream"


class InstanceStreams:
    """Takes the descriptors of `started`, except that of control.

    `declared` is called with the output's content type and what it provides; `stdin_ended` when the
    spawner has to close its end of the standard input, too.
    """

    def __init__(
        self,
        started: Started,
        *,
        poll: EdgePoll,
        position: OutputPosition,
        output_type: str,
        is_taken_over: bool,
        declared: Callable[[str, dict[str, Any]], None],
        stdin_ended: Done,
    ) -> None:
        descriptors = started.streams
        self.output_type = output_type
        self.topic_output: TopicOutput | None = None
        self.topic_input: TopicInput | None = None
        self._position = position
        self.input = ProgramInput(
            descriptors.input, is_taken_over=is_taken_over, gone=self._input_gone
        )
        self._stdin = StandardInput(
            descriptors.stdin,
            is_closed=started.stdin_closed,
            ended=stdin_ended,
            gone=self._stdin_gone,
        )
        self._input_feeder = Feeder(self.input)
        self._stdin_feeder = Feeder(self._stdin)
        self._rings = {
            "stdout": RingStream(descriptors.stdout, framed=False, content_type=BYTES_TYPE),
            "stderr": RingStream(descriptors.stderr, framed=False, content_type=BYTES_TYPE),
            "log": RingStream(descriptors.log, framed=True, content_type=LOG_TYPE),
        }
        self._output = Output(descriptors.output, poll=poll, position=position, declared=declared)
        self._reader: Channel | None = None

    @property
    def dropped(self) -> dict[str, int]:
        """Bytes that nobody read in time, by stream."""
        return {name: stream.ring.dropped for name, stream in self._rings.items()}

    def serve(self, channel: Channel) -> None:
        """Join a channel that the broker opened with the stream that it asks for."""
        stream = channel.request.get("stream")
        match stream:
            case "input":
                self._input_feeder.serve(channel)
            case "stdin":
                self._stdin_feeder.serve(channel)
            case "output":
                self._serve_output(channel)
            case "stdout" | "stderr" | "log":
                self._rings[stream].serve(channel)
            case _:
                channel.reset(BadRequest(f"an Instance has no stream '{str(stream)[:40]}'"))

    def publish(self, producer: Producer) -> TopicOutput:
        """The output goes to a Topic from now on, and to nobody else."""
        self.topic_output = TopicOutput(self._output, producer, self.note)
        return self.topic_output

    def subscribe(self, topic: str, content_type: str, instance: str) -> TopicInput:
        """The input comes from a Topic from now on, and from nobody else."""
        self.topic_input = TopicInput(
            self.input,
            topic=topic,
            content_type=content_type,
            instance=instance,
            trouble=self.note,
        )
        return self.topic_input

    def note(self, text: str) -> None:
        """A line of ours in the Instance's log."""
        line = {
            "msg": text,
            "level": "WARN",
            "ts": time.time_ns() // 1_000_000,
            "from": "sth-agent",
        }
        self._rings["log"].add_line(json.dumps(line).encode() + b"\n")

    async def drained(self) -> None:
        """After the process has ended: returns when its last words are in the rings."""
        ends = [each.ended for each in self._rings.values()]
        await asyncio.wait(ends, timeout=DRAIN_SECONDS)
        for each in self._rings.values():
            each.close()
        self.close_inputs()

    def close_inputs(self) -> None:
        """Nothing more goes into the program: every writer hears it."""
        gone = StreamFailed("the program has ended")
        self.input.close()
        self._stdin.close()
        self._input_feeder.fail(gone)
        self._stdin_feeder.fail(gone)
        if self.topic_input is not None:
            self.topic_input.close()

    def close(self, *, remove: bool) -> None:
        """Let go of everything. `remove`: the Instance is forgotten, not only this process."""
        self.close_inputs()
        if self.topic_output is not None:
            self.topic_output.close()
        for each in self._rings.values():
            each.close()
        self._output.close()
        self._position.close(remove=remove)

    def _serve_output(self, channel: Channel) -> None:
        if self.topic_output is not None:
            channel.reset(
                Conflict(
                    "the output of this Instance goes to a Topic", hint="read the Topic instead"
                )
            )
        elif self._reader is not None and not self._reader.over:
            channel.reset(Conflict("the output of this Instance is being read already"))
        else:
            self._reader = channel
            OutputReader(self._output, channel, self.output_type)

    def _input_gone(self) -> None:
        self._input_feeder.fail(StreamFailed("the program takes no more input"))

    def _stdin_gone(self) -> None:
        self._stdin_feeder.fail(StreamFailed("the program takes no more standard input"))
