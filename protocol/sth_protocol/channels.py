"""The channels of a session: which numbers there were, which are open, and how they end."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum

from sth_protocol import frames
from sth_protocol.channel import Channel
from sth_protocol.errors import ChannelViolation, InsufficientResources, Internal
from sth_protocol.frames import FrameType
from sth_protocol.outbox import Outbox
from sth_protocol.window import POOL, Pool


class Side(Enum):
    """Which end this is; its value is the first channel that it opens."""

    AGENT = 1
    BROKER = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """`channels`: open at once, for each opener; the rest in bytes. `pool`: growth of all receive
    windows; `control`: control frames that wait to be sent; `unacknowledged`: frames kept for the
    peer, beyond which nothing new is sent."""

    channels: int = 4096
    pool: int = POOL
    control: int = 8 * 1024 * 1024
    unacknowledged: int = 32 * 1024 * 1024


class ChannelTable:
    """Both ends open channels with numbers of their own parity, in rising order without gaps: a
    number below the next one that is not here belongs to a channel that is over."""

    __slots__ = ("_channels", "_count_own", "_limit", "_next", "_outbox", "_parity", "_pool")

    def __init__(self, *, side: Side, limits: Limits, outbox: Outbox) -> None:
        self._limit = limits.channels
        self._outbox = outbox
        self._pool = Pool(limits.pool)
        self._channels: dict[int, Channel] = {}
        self._parity = side.value % 2
        self._count_own = 0
        # The next number of each parity.
        self._next = {1: Side.AGENT.value, 0: Side.BROKER.value}

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def numbers(self) -> Collection[int]:
        """A live view."""
        return self._channels.keys()

    def next_own(self) -> int:
        """The number of the next channel of ours. InsufficientResources if too many are open."""
        if self._count_own >= self._limit:
            raise InsufficientResources(f"{self._count_own} channels are open on this link")
        return self._next[self._parity]

    def add_own(self) -> Channel:
        number = self.next_own()
        self._count_own += 1
        return self._add(number, opened_here=True)

    def add_peers(self, number: int) -> Channel:
        """A channel that the peer opens. ChannelViolation: not its next number, or too many."""
        expected = self._next[1 - self._parity]
        if number != expected:
            raise ChannelViolation(f"channel {number} opened where {expected} is the next one")
        if len(self._channels) - self._count_own >= self._limit:
            raise ChannelViolation(f"more than {self._limit} channels opened")
        return self._add(number, opened_here=False)

    def _add(self, number: int, *, opened_here: bool) -> Channel:
        channel = Channel(number, opened_here=opened_here, pool=self._pool)
        self._channels[number] = channel
        self._next[number % 2] = number + 2
        return channel

    def for_intent(self, number: int) -> Channel | None:
        """The channel that our user means; None if it is over. Internal if there never was one."""
        found = self._channels.get(number)
        if found is None and not 0 < number < self._next[number % 2]:
            raise Internal(f"there is no channel {number}")
        return found

    def for_frame(self, number: int) -> Channel | None:
        """The channel of a frame that came; None if it is over, and the frame was on its way.
        ChannelViolation if there never was one."""
        found = self._channels.get(number)
        if found is None and not 0 < number < self._next[number % 2]:
            raise ChannelViolation(f"channel {number} was never opened")
        return found

    def settle_receiving(self, channel: Channel) -> None:
        """Send DONE once all that came before the FIN is consumed."""
        if channel.receiving != "finished" or not channel.window.empty:
            return
        channel.receiving = channel.check_own(channel.receiving, "done")
        channel.window.close()
        self._outbox.drop_credit(channel)
        done = frames.encode(FrameType.DONE, channel.number, channel.window.consumed)
        self._outbox.add_control(done)
        self.remove_if_over(channel)

    def remove_if_over(self, channel: Channel) -> None:
        if channel.sending == "done" and channel.receiving == "done":
            self.remove(channel)

    def remove(self, channel: Channel) -> None:
        """The channel is over: what it holds goes back, what waits on it is dropped."""
        channel.close()
        del self._channels[channel.number]
        self._outbox.drop(channel)
        if channel.number % 2 == self._parity:
            self._count_own -= 1
