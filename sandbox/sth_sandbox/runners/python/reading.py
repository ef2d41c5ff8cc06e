"""The program's input: what `input` is in `run(context, input)`.

The socket is read only when the program asks and nothing is left of what was read before, so that
what it does not want stays with the agent.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import Frame, FrameError
from sth_sandbox.runners.python.decoding import Batch, Decoder, decoder_for
from sth_sandbox.runners.python.derived import Derived
from sth_sandbox.runners.python.sockets import FrameSource
from sth_sandbox.runners.python.turns import Turns

_REPORT_SECONDS = 0.1
_SELDOM_SECONDS = 5.0
_REPORT_BYTES = 256 * 1024


class Input(Derived):
    """An asynchronous stream of lines (text), values (ndjson) or bytes (octet-stream).

    A program that is not asynchronous may use a plain `for`.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        turns: Turns,
        wait_in_place: Callable[[float | None], bool],
        report: Callable[[int, int], None],
    ) -> None:
        """`wait_in_place` blocks until the socket may be read, or for so many seconds: then it
        returns False. `report` tells what is consumed."""
        self.content_type: str | None = None
        self._source = source
        self._turns = turns
        self._wait_in_place = wait_in_place
        self._report = report
        self._frames: deque[Frame] = deque()
        self._decoder: Decoder | None = None
        self._batch: Batch | None = None
        self._items: Iterator[Any] = iter(())
        self._asking = False
        self._ended = False
        self._received = (0, 0)
        self._reported = (0, 0)
        self._reported_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._readable: asyncio.Future[None] | None = None
        self._watched = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            for item in self._items:
                yield item
            if not await self._advance():
                return

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self._items
            if not self._advance_in_place():
                return

    async def read(self) -> Any:
        """The next line, value or chunk; None at the end."""
        while True:
            for item in self._items:
                return item
            if not await self._advance():
                return None

    def position(self) -> tuple[int, int]:
        """Offset and record number up to which the program is done with its input."""
        return self._batch.position(asking=self._asking) if self._batch else self._reported

    def report_position(self) -> None:
        """Tells what is consumed, if that is news."""
        position = self.position()
        if position != self._reported:
            self._reported = position
            self._reported_at = time.monotonic()
            self._report(*position)

    def resynchronise(self) -> dict[str, Any]:
        """Takes what a dead agent has left in the socket, and says where its successor goes on."""
        try:
            while True:
                self._frames.extend(self._source.receive())
        except (BlockingIOError, EOFError):
            pass
        self._source.drop_incomplete()
        offset, number = self._received
        content_type, ended = self.content_type, self._ended
        for header, payload in self._frames:
            if header.type == frames.DATA:
                offset, number = header.offset + header.length, header.number + header.count
            elif header.type == frames.TYPE:
                content_type = payload.decode()
            elif header.type == frames.END:
                ended = True
        return {"offset": offset, "sequence": number, "content_type": content_type, "ended": ended}

    async def _advance(self) -> bool:
        """Gets the next items; False at the end."""
        self._settle()
        await self._turns.give()
        while not self._take():
            if self._ended:
                return False
            await self._wait()
        if self._timer is None:
            self._arm(_REPORT_SECONDS)
        return True

    def _advance_in_place(self) -> bool:
        self._settle()
        while not self._take():
            if self._ended:
                return False
            if not self._wait_in_place(_REPORT_SECONDS):
                self.report_position()
                self._wait_in_place(None)
        return True

    def _settle(self) -> None:
        """The program asks for more: it is done with what it had."""
        self._asking = True
        overdue = time.monotonic() - self._reported_at >= _REPORT_SECONDS
        if overdue or self.position()[0] - self._reported[0] >= _REPORT_BYTES:
            self.report_position()

    def _arm(self, delay: float) -> None:
        """Reports in a while, and then again: more and more rarely while there is no news."""

        def report() -> None:
            self._timer = None
            before = self._reported
            self.report_position()
            if not self._asking or self.position() != self._reported:
                quiet = self._reported == before
                self._arm(min(delay * 2, _SELDOM_SECONDS) if quiet else _REPORT_SECONDS)

        self._timer = asyncio.get_running_loop().call_later(delay, report)

    def _take(self) -> bool:
        """Makes items out of the frames that are there; False if there are none."""
        while not self._ended:
            if not self._frames:
                try:
                    self._frames.extend(self._source.receive())
                except BlockingIOError:
                    return False
                continue
            batch = self._decoded(self._frames.popleft())
            if batch:
                self._batch = batch
                self._items = batch.items
                self._asking = False
                return True
        return False

    def _decoded(self, frame: Frame) -> Batch | None:
        header, payload = frame
        if header.type == frames.TYPE:
            self.content_type = payload.decode()
            self._decoder = decoder_for(self.content_type)
            return None
        if header.type == frames.END:
            self._ended = True
            return self._decoder.finish() if self._decoder else None
        if header.type != frames.DATA or self._decoder is None:
            raise FrameError(f"a frame of type {header.type} is not expected on the input")
        self._received = (header.offset + header.length, header.number + header.count)
        return self._decoder.feed(frame)

    def _wait(self) -> Awaitable[None]:
        loop = asyncio.get_running_loop()
        self._readable = loop.create_future()
        if not self._watched:
            loop.add_reader(self._source.socket, self._wake)
            self._watched = True
        return self._readable

    def _wake(self) -> None:
        """The socket may be read. Stops watching only when nobody waits: a watch costs two calls
        into the kernel, and whoever waited will mostly wait again."""
        if self._readable is None or self._readable.done():
            asyncio.get_running_loop().remove_reader(self._source.socket)
            self._watched = False
        else:
            self._readable.set_result(None)
