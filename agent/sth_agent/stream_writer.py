"""Writes to a program's pipe or socket without ever waiting for it."""

import asyncio
import os
from collections import deque
from collections.abc import Callable

# The kernel takes at most 1024 parts in one call.
_MOST_PARTS = 256

Done = Callable[[], None]


class StreamWriter:
    """`descriptor` becomes the writer's own. What it does not take at once waits here: its users
    bound that by the credit that they give.

    `failed` is called once, when nobody reads the other end any more.
    """

    def __init__(self, descriptor: int, *, failed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._failed = failed
        self._parts: deque[bytes | memoryview] = deque()
        # How many parts have to leave until somebody is told.
        self._done: deque[tuple[int, Done]] = deque()
        self._added = 0
        self._left = 0
        self._is_watched = False
        os.set_blocking(descriptor, False)

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def write(self, *parts: bytes | memoryview, done: Done | None = None) -> None:
        """Write the parts in order; `done` is called when the other side has taken them all."""
        if self._descriptor < 0:
            return
        self._parts.extend(parts)
        self._added += len(parts)
        if done is not None:
            self._done.append((self._added, done))
        if not self._is_watched:
            self._push()

    def close(self) -> None:
        """Write no more; what waits is dropped, and nobody is told."""
        if self._descriptor < 0:
            return
        self._unwatch()
        os.close(self._descriptor)
        self._descriptor = -1
        self._parts.clear()
        self._done.clear()

    def _push(self) -> None:
        parts = self._parts
        while parts:
            try:
                count = os.writev(
                    self._descriptor, [parts[n] for n in range(min(len(parts), _MOST_PARTS))]
                )
            except BlockingIOError:
                if not self._is_watched:
                    self._is_watched = True
                    self._loop.add_writer(self._descriptor, self._push)
                break
            except OSError:
                self.close()
                self._failed()
                return
            while parts and count >= len(parts[0]):
                count -= len(parts.popleft())
                self._left += 1
            if count:
                parts[0] = memoryview(parts[0])[count:]
        else:
            self._unwatch()
        while self._done and self._done[0][0] <= self._left:
            self._done.popleft()[1]()

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_writer(self._descriptor)
