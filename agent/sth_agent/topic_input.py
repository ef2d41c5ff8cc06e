"""A Topic on its way into an Instance: stored batches become frames of records.

A batch counts as consumed when the program's socket has taken it; what was not consumed is given
again over the next session. So records may come twice, and are never left out.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sth_agent.channels import Channel, ChannelUser
from sth_agent.program_input import ProgramInput
from sth_agent.session import Session
from sth_protocol import batch
from sth_protocol.errors import FrameTooLarge, SessionLost, SthError, StreamFailed

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


class TopicInput(ChannelUser):
    """Subscribes anew in every session. `content_type` may be "": the Topic's own is taken.

    `trouble` is called with a sentence for the Instance's log when the broker refuses it.
    """

    def __init__(
        self,
        target: ProgramInput,
        *,
        topic: str,
        content_type: str,
        instance: str,
        trouble: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._target = target
        self._topic = topic
        self._content_type = content_type
        self._instance = instance
        self._trouble = trouble
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._offset = 0
        target.is_fed_by_topic = True

    def session_began(self, session: Session) -> None:
        """Subscribe over this session from now on."""
        self._session = session
        self._open()

    def close(self) -> None:
        """The program takes no more; what it did not take stays in the Topic."""
        self._session = None
        if self._retry is not None:
            self._retry.cancel()
        if self._channel is not None:
            self._channel.reset(StreamFailed("the program has ended"))

    def _open(self) -> None:
        self._retry = None
        if self._session is None or self._session.lost:
            return
        self._parts.clear()
        self._size = 0
        request = {
            "kind": "subscribe",
            "topic": self._topic,
            "content_type": self._content_type,
            "instance": self._instance,
        }
        try:
            self._channel = self._session.open(request, self)
        except SthError as error:
            self._try_later(error)

    def accepted(self, info: Mapping[str, Any]) -> None:
        offset = info.get("offset")
        self._offset = offset if isinstance(offset, int) else 0
        content_type = str(info.get("content_type") or self._content_type)
        self._target.begin(content_type, ends=False)

    def received(self, data: bytes, more: bool) -> None:
        channel = self._channel
        if channel is None:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._size > batch.MAX_BATCH:
            self._give_up(FrameTooLarge(f"a batch of more than {batch.MAX_BATCH} bytes"))
        elif more:
            # A batch may be larger than the window: what it begins with is held here.
            channel.consume(len(data))
        else:
            parts, self._parts, self._size = self._parts, [], 0
            self._give(channel, parts[0] if len(parts) == 1 else b"".join(parts), len(data))

    def finished(self) -> None:
        """The Topic was removed, or the broker ends: it is asked again."""
        if self._channel is not None:
            self._channel.finish()
            self._channel = None
        self._try_later(StreamFailed("the broker ended the subscription"))

    def reset(self, error: SthError, consumed: int | None) -> None:
        self._channel = None
        if not isinstance(error, SessionLost):
            self._try_later(error)

    def _give(self, channel: Channel, data: bytes, unconsumed: int) -> None:
        try:
            header = batch.read_checked(data)
        except SthError as error:
            self._give_up(error)
            return
        skip = max(self._offset - header.base_offset, 0)
        payload = batch.payload_after(data, header, skip)
        is_chunk = bool(header.flags & batch.FLAG_CHUNK)
        count = 0 if is_chunk else max(header.count - skip, 0)
        if payload:
            self._target.write_records(payload, count, lambda: channel.consume(unconsumed))
        else:
            channel.consume(unconsumed)

    def _give_up(self, error: SthError) -> None:
        if self._channel is not None:
            self._channel.reset(error)
        self.reset(error, None)

    def _try_later(self, error: SthError) -> None:
        self._trouble(f"Topic {self._topic} gives no input: {error.message}")
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._open)
