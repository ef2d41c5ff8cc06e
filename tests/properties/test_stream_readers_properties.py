"""Readers of one stream come, read, stop and go at random: each gets all that is new, in order, and
nothing counts as consumed that one of them lacks."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.joined import Joined

from sth_broker.channel import Channel
from sth_broker.stream_readers import Reader, Source
from sth_protocol.events import Accepted, Credited, Data, Event, Finished, Reset
from sth_protocol.mux import Mux


class Hub:
    """The stream's other end: a real multiplexer, and all that was written to it."""

    def __init__(self) -> None:
        self._joined = Joined()
        self.mux: Mux = self._joined.broker.mux
        self.agent: Mux = self._joined.agent.mux
        self.number = self.mux.open({"kind": "instance"})
        self.channel = Channel(self, self.number, {}, accepted=False)
        self.written = bytearray()
        self.consumed = 0
        self.reset = False
        self.flush()
        self.agent.accept(self.number, {})
        self.flush()

    def write(self, count: int) -> None:
        data = bytes((len(self.written) + index) % 251 for index in range(count))
        self.written += data
        self.agent.send(self.number, data)
        self.flush()

    def finish(self) -> None:
        self.agent.finish(self.number)
        self.flush()

    def flush(self) -> None:
        """Everything that waits arrives, and what came for the channel is handed to it."""
        self._joined.pump()
        for event in self._joined.seen(self._joined.broker):
            self._to_channel(event)
        for event in self._joined.seen(self._joined.agent):
            match event:
                case Credited(_, consumed) | Reset(_, _, _, consumed):
                    self.consumed = max(self.consumed, consumed)
            self.reset = self.reset or isinstance(event, Reset)

    def settle(self, channel: Channel) -> None:
        """Nothing else remembers the channel."""

    def _to_channel(self, event: Event) -> None:
        match event:
            case Accepted(_, info):
                self.channel.on_accepted(info)
            case Data(_, data, more):
                self.channel.on_data(data, more)
            case Finished():
                self.channel.on_finished()


@dataclass
class User:
    """A reader, where it began, and what it has got and taken."""

    reader: Reader
    began: int
    got: bytearray = field(default_factory=bytearray)
    taken: int = 0
    reading: asyncio.Task[bytes] | None = None
    ended: bool = False

    async def step(self) -> None:
        """Begin to read, or take in what has been read."""
        if self.reading is None:
            self.reading = asyncio.create_task(self.reader.read())
        for _ in range(4):
            await asyncio.sleep(0)
        if self.reading.done():
            data = self.reading.result()
            self.reading = None
            self.ended = not data
            self.got += data

    def take(self) -> None:
        count = len(self.got) - self.taken
        self.taken += count
        self.reader.consumed(count)

    async def leave(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)
        self.reader.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "join", "read", "take", "leave"]), st.integers(0, 5)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.booleans())
def test_every_reader_gets_all_that_is_new(steps: list[tuple[str, int]], finishes: bool) -> None:
    asyncio.run(play(steps, finishes=finishes))


async def play(steps: list[tuple[str, int]], *, finishes: bool) -> None:
    hub = Hub()
    over: list[Source] = []
    source = Source(hub.channel, stall=1000.0, on_over=over.append)
    users = [User(source.join(lambda: None), 0)]
    for step, number in steps:
        user = users[number % len(users)]
        if step == "write":
            hub.write(1 + 7000 * number)
        elif step == "join":
            users.append(User(source.join(lambda: None), source.front))
        elif step == "read":
            await user.step()
        elif step == "take":
            user.take()
        elif len(users) > 1:
            users.remove(user)
            await user.leave()
        hub.flush()
        check(hub, users)
    if finishes:
        hub.finish()
        while not all(user.ended for user in users):
            for user in users:
                await user.step()
                user.take()
            hub.flush()
        for user in users:
            assert user.got == hub.written[user.began :]
    for user in users:
        await user.leave()
    hub.flush()
    assert over == [source]
    assert hub.reset is not finishes
    if finishes:
        assert hub.consumed == len(hub.written)
        assert hub.number not in hub.mux.channels()


def check(hub: Hub, users: list[User]) -> None:
    for user in users:
        assert user.got == hub.written[user.began : user.began + len(user.got)]
        # What this one has not taken could still be asked for again.
        assert hub.consumed <= user.began + user.taken
