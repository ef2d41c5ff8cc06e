"""Hands an Instance's output to the reader at the end of a channel."""

from sth_agent.channels import Channel, ChannelUser
from sth_agent.output import Output
from sth_agent.output_walker import Piece
from sth_protocol.errors import SthError


class OutputReader(ChannelUser):
    """The sink behind one channel. The channel's byte 0 is `start` of the stream."""

    def __init__(self, output: Output, channel: Channel, content_type: str) -> None:
        self._output = output
        self._channel = channel
        self._start = output.position.offset
        self._sent = 0
        self._failure: SthError | None = None
        channel.user = self
        channel.accept({"offset": self._start, "content_type": content_type})
        output.attach(self)

    def wants(self) -> bool:
        return self._channel.sendable > 0

    def take(self, piece: Piece) -> None:
        self._channel.send(piece.data)
        self._sent += len(piece.data)

    def ended(self, error: SthError | None) -> None:
        if error is None:
            self._channel.finish()
        else:
            self._failure = error
            self._fail_when_consumed(self._output.position.offset - self._start)

    def credited(self, consumed: int) -> None:
        self._output.consumed(self._start + consumed)
        if self._failure is None:
            self._output.pump()
        else:
            self._fail_when_consumed(consumed)

    def reset(self, error: SthError, consumed: int | None) -> None:
        if consumed is not None:
            self._output.consumed(self._start + consumed)
        self._output.detach(self)

    def _fail_when_consumed(self, consumed: int) -> None:
        """A reset drops what is on its way: the program's last words come first."""
        if self._failure is not None and consumed >= self._sent:
            self._channel.reset(self._failure)
            self._output.detach(self)
