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
        channel.user = self
        channel.accept({"offset": self._start, "content_type": content_type})
        output.attach(self)

    def wants(self) -> bool:
        return self._channel.sendable > 0

    def take(self, piece: Piece) -> None:
        self._channel.send(piece.data)

    def ended(self, error: SthError | None) -> None:
        if error is None:
            self._channel.finish()
        else:
            self._channel.reset(error)
            self._output.detach(self)

    def credited(self, consumed: int) -> None:
        self._output.consumed(self._start + consumed)
        self._output.pump()

    def finished(self) -> None:
        """The broker sends nothing on this channel."""

    def reset(self, error: SthError, consumed: int | None) -> None:
        if consumed is not None:
            self._output.consumed(self._start + consumed)
        self._output.detach(self)
