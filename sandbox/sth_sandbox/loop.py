"""The spawner's event loop: descriptors, timers and signals, in one thread, without asyncio.

asyncio's loop would be alive in every cloned child; this one is left behind with a closed
descriptor.
"""

import heapq
import itertools
import logging
import os
import selectors
import sys
import time
from collections.abc import Callable, Mapping

from sth_sandbox import syscalls

logger = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

# struct signalfd_siginfo; the signal's number comes first.
_SIGNAL_RECORD = 128

Callback = Callable[[], None]


class Timer:
    """A call to come; `cancel` is harmless afterwards."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a signal arrived."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = False
        self._signals = -1

    def watch(self, descriptor: int, events: int, callback: Callback) -> None:
        """Call back whenever it is ready; watching it again replaces the callback."""
        try:
            self._selector.modify(descriptor, events, callback)
        except KeyError:
            self._selector.register(descriptor, events, callback)

    def unwatch(self, descriptor: int) -> None:
        """Before it is closed; harmless if it is not watched."""
        try:
            self._selector.unregister(descriptor)
        except KeyError:
            pass

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def on_signals(self, callbacks: Mapping[int, Callback]) -> None:
        """Call back, inside the loop, when one of these signals arrives. To be called once."""
        descriptor = self._signals = syscalls.signal_descriptor(callbacks)

        def receive() -> None:
            number = int.from_bytes(os.read(descriptor, _SIGNAL_RECORD)[:4], sys.byteorder)
            callbacks[number]()

        self.watch(descriptor, READ, receive)

    def run(self) -> None:
        """Until `stop`. A callback that fails is logged: nothing may end the parent of all."""
        self._running = True
        while self._running:
            for key, _ in self._selector.select(self._patience()):
                # An earlier callback of this round may have let go of it.
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:
                    self._call(key.data)
            self._run_due_timers()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        if self._signals >= 0:
            os.close(self._signals)
        self._selector.close()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _run_due_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._call(timer.callback)

    @staticmethod
    def _call(callback: Callback) -> None:
        try:
            callback()
        except Exception:
            logger.exception("a callback of the spawner failed")
