"""A TCP line that breaks by itself, in a thread of its own, for tests with real processes."""

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator

_READ_BYTES = 16 * 1024


class UnreliableLine:
    """`port`: dial here to reach `target`, once that is set. Every connection is cut after a random
    number of bytes, as a rule inside of something, from `release` on, until `cuts` have been made;
    `seen`: how many."""

    def __init__(self, *, seed: int, cuts: int, most_bytes: int) -> None:
        self.target = 0
        self.port = 0
        self.seen = 0
        self._is_held = True
        self._random = random.Random(seed)
        self._cuts = cuts
        self._most_bytes = most_bytes
        self._tasks: set[asyncio.Task[None]] = set()

    def release(self) -> None:
        """Begin to cut."""
        self._is_held = False

    async def serve(self, listening: threading.Event, closing: asyncio.Event) -> None:
        """Until `closing` is set."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await closing.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(far_writer)
            budget = [self._random.randint(1, self._most_bytes)]
            ways = [
                asyncio.create_task(self._copy(reader, far_writer, budget)),
                asyncio.create_task(self._copy(far_reader, writer, budget)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        for end in ends:
            end.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: list[int]
    ) -> None:
        while data := await reader.read(_READ_BYTES):
            if not self._is_held and self.seen < self._cuts:
                budget[0] -= len(data)
                if budget[0] <= 0:
                    self.seen += 1
                    writer.write(data[: len(data) + budget[0]])
                    await writer.drain()
                    return
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def unreliable_line(*, seed: int, cuts: int, most_bytes: int) -> Iterator[UnreliableLine]:
    """A running line; its `target` is to be set before it is dialled."""
    line = UnreliableLine(seed=seed, cuts=cuts, most_bytes=most_bytes)
    loop = asyncio.new_event_loop()
    listening, closing = threading.Event(), asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(line.serve(listening, closing)), name="line"
    )
    thread.start()
    try:
        assert listening.wait(10)
        yield line
    finally:
        loop.call_soon_threadsafe(closing.set)
        thread.join()
        loop.close()
