"""Wakes the readers of sockets that are peeked.

Peeked bytes stay in their socket, which is therefore readable all the time: the event loop's own
selector would report it again and again. Edge-triggered, it is reported when more arrives.
"""

import asyncio
import contextlib
import logging
import select
from collections.abc import Callable

logger = logging.getLogger(__name__)

_EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class EdgePoll:
    """Calls a function of each descriptor when new bytes came for it, or its end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._loop.add_reader(self._poll.fileno(), self._ready)

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """`callback` must read until nothing is left, or come back by itself. It is called soon
        for what is there already."""
        self._callbacks[descriptor] = callback
        self._poll.register(descriptor, _EVENTS)

    def remove(self, descriptor: int) -> None:
        """Before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._poll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()
        self._callbacks.clear()

    def _ready(self) -> None:
        for descriptor, _ in self._poll.poll(0):
            callback = self._callbacks.get(descriptor)
            if callback is None:
                continue
            try:
                callback()
            except Exception:
                # The others are told only this once.
                logger.exception("a socket could not be read")
