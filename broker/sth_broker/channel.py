"""One stream between the broker and an agent, as its users see it: they await bytes and credit.

The multiplexer keeps what waits to be sent; here stands what came and was not yet read, which
credit bounds. A channel outlives a broken link: only the end of the session ends it.
"""

import asyncio
import copy
from collections import deque
from typing import Any, Protocol

from sth_protocol.errors import FrameTooLarge, SthError, from_wire
from sth_protocol.mux import Mux

Json = dict[str, Any]

# One batch: 1 MiB of payload, its header and its index.
MAX_MESSAGE = 1024 * 1024 + 64 * 1024
# Small pieces are joined up to this size; larger ones are handed on as they came.
_JOINED = 64 * 1024


class Session(Protocol):
    """What a channel needs of the session that carries it."""

    @property
    def mux(self) -> Mux: ...

    def flush(self) -> None:
        """Send what waits, soon."""
        ...

    def settle(self, channel: "Channel") -> None:
        """Forget the channel if it is over."""
        ...


class Signal:
    """Wakes everybody who waits for it: a condition without a lock, since all run on one loop."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter.cancelled() and waiter in self._waiters:
                self._waiters.remove(waiter)

    def notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Channel:
    """`info`: what the agent accepted with, or, if the agent opened it, its request. `number`: its
    place in the session."""

    __slots__ = (
        "_arrived",
        "_consumed_ahead",
        "_consumed_by_peer",
        "_error",
        "_finished",
        "_finished_by_peer",
        "_is_accepted",
        "_is_discarding",
        "_moved",
        "_pieces",
        "_pieces_size",
        "_received",
        "_sent",
        "_session",
        "_unconsumed",
        "info",
        "number",
    )

    def __init__(self, session: Session, number: int, info: Json, *, accepted: bool) -> None:
        self.info = info
        self.number = number
        self._session = session
        self._is_accepted = accepted
        self._received: deque[tuple[bytes, bool]] = deque()
        # A message of which the end has not come.
        self._pieces: list[bytes] = []
        self._pieces_size = 0
        # Bytes of it that were consumed so that the rest could come.
        self._consumed_ahead = 0
        self._unconsumed = 0
        self._sent = 0
        self._consumed_by_peer = 0
        self._finished = False
        self._finished_by_peer = False
        self._is_discarding = False
        self._error: SthError | None = None
        # Bytes, FIN or an error came; credit came, or the state changed.
        self._arrived = Signal()
        self._moved = Signal()

    # -- receiving -----------------------------------------------------------------------------

    async def read(self) -> bytes:
        """The next bytes, at least one, whatever is there; b"" when the agent has finished. Raises
        the error of a RESET, or SessionLost, after what came before it. One reader at a time."""
        while True:
            while not self._received:
                if self._at_end():
                    return b""
                await self._arrived.wait()
            data = self._take()
            # Nothing but the end of a message, which this reader does not ask for.
            if data:
                return data

    def _take(self) -> bytes:
        received = self._received
        data, _ = received.popleft()
        if not received or len(data) >= _JOINED // 2:
            return data
        pieces = [data]
        size = len(data)
        while received and size + len(received[0][0]) <= _JOINED:
            data, _ = received.popleft()
            pieces.append(data)
            size += len(data)
        return b"".join(pieces)

    async def read_message(self) -> bytes | None:
        """The next whole message; None when the agent has finished. Errors as of `read`;
        FrameTooLarge, and the channel is reset, for more than MAX_MESSAGE bytes."""
        pieces = self._pieces
        while True:
            while not self._received:
                if self._at_end():
                    return None
                # The window may be smaller than the message. What we hold already is bounded by
                # MAX_MESSAGE, so its credit can be given back before its user has it.
                self._consume_ahead(self._pieces_size - self._consumed_ahead)
                await self._arrived.wait()
            data, more = self._received.popleft()
            pieces.append(data)
            self._pieces_size += len(data)
            if self._pieces_size > MAX_MESSAGE:
                error = FrameTooLarge(f"a message of more than {MAX_MESSAGE} bytes")
                self.reset(error.code, error.message)
                raise error
            if not more:
                message = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self._pieces_size = 0
                return message

    def consume(self, count: int) -> None:
        """`count` bytes more of what was read have reached the next hop: the agent may send as many
        again. Every byte that was read has to be consumed."""
        ahead = min(count, self._consumed_ahead)
        self._consumed_ahead -= ahead
        if count > ahead:
            self._consume(count - ahead)

    def _consume_ahead(self, count: int) -> None:
        if count > 0:
            self._consumed_ahead += count
            self._consume(count)

    def _consume(self, count: int) -> None:
        if self._error is None:
            self._unconsumed -= count
            self._session.mux.consume(self.number, count)
            self._session.settle(self)
            self._session.flush()

    def _at_end(self) -> bool:
        if self._error is not None:
            raise copy.copy(self._error)
        return self._finished_by_peer

    # -- sending -------------------------------------------------------------------------------

    async def write(self, data: bytes | memoryview, *, more: bool = False) -> None:
        """Queue `data` as soon as any credit is left. `more`: the message goes on in the next call.
        Raises the error of a RESET, or SessionLost."""
        mux = self._session.mux
        while True:
            if self._error is not None:
                raise copy.copy(self._error)
            if mux.sendable(self.number) > 0:
                break
            await self._moved.wait()
        mux.send(self.number, data, more=more)
        self._sent += len(data)
        self._session.flush()

    async def drained(self) -> None:
        """Returns when the agent has consumed all that was written. Errors as of `write`."""
        while self._consumed_by_peer < self._sent:
            if self._error is not None:
                raise copy.copy(self._error)
            await self._moved.wait()

    @property
    def consumed_by_peer(self) -> int:
        """How many of the bytes written the agent has consumed, as far as it has told."""
        return self._consumed_by_peer

    def finish(self) -> None:
        """Write no more; the agent learns it after what was written. May be called again."""
        if self._finished or self._error is not None:
            return
        self._finished = True
        self._session.mux.finish(self.number)
        self._session.settle(self)
        self._session.flush()

    def reset(self, code: str, message: str = "") -> None:
        """End the channel both ways at once; what waits on it is dropped. May be called again."""
        if self._error is None:
            self._session.mux.reset(self.number, code, message)
            self._received.clear()
            self.fail(from_wire({"code": code, "message": message}))
            self._session.settle(self)
            self._session.flush()

    def accept(self, info: Json | None = None) -> None:
        """Accept a channel that the agent opened; before that nothing can be written."""
        if self._is_accepted or self._error is not None:
            return
        self._is_accepted = True
        self._session.mux.accept(self.number, info)
        self._moved.notify()
        self._session.flush()

    # -- its end -------------------------------------------------------------------------------

    @property
    def accepted(self) -> bool:
        return self._is_accepted

    @property
    def error(self) -> SthError | None:
        """What ended it, if it was not an end."""
        return copy.copy(self._error)

    @property
    def over(self) -> bool:
        """Whether nothing moves any more in either direction."""
        return self._error is not None or (self._finished and self._finished_by_peer)

    async def wait_closed(self) -> None:
        """Returns when the channel is over, however it ended."""
        while not self.over:
            await self._moved.wait()

    def abandon(self) -> None:
        """Its user is gone: finish our half, and let go of what still comes."""
        if not self._is_accepted:
            self.reset("STREAM_FAILED", "it was not accepted")
            return
        self.finish()
        self._is_discarding = True
        self._received.clear()
        self._pieces.clear()
        self._consume(self._unconsumed)

    # -- for the session that carries it -------------------------------------------------------

    async def wait_accepted(self) -> None:
        """Returns when the agent has accepted; raises the error of its RESET."""
        while not self._is_accepted:
            if self._error is not None:
                raise copy.copy(self._error)
            await self._moved.wait()

    def on_accepted(self, info: Json) -> None:
        self.info = info
        self._is_accepted = True
        self._moved.notify()

    def on_data(self, data: bytes, more: bool) -> None:
        self._unconsumed += len(data)
        if self._is_discarding:
            self._consume(len(data))
            return
        self._received.append((data, more))
        self._arrived.notify()

    def on_finished(self) -> None:
        self._finished_by_peer = True
        self._arrived.notify()
        self._moved.notify()

    def on_credited(self, consumed: int) -> None:
        self._consumed_by_peer = consumed
        self._moved.notify()

    def fail(self, error: SthError) -> None:
        """End it with an error; what came before can still be read."""
        if self._error is None:
            self._error = error
            self._arrived.notify()
            self._moved.notify()
