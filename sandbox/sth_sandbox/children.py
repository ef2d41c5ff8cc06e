"""A started process as the spawner's loop sees it: its report, then its end."""

import logging
import os
import signal
from collections.abc import Callable

from sth_sandbox.actions import SetupFailed
from sth_sandbox.loop import READ, Loop
from sth_sandbox.newborn import check_report
from sth_sandbox.orders import Plan
from sth_sandbox.zygote import Zygote

logger = logging.getLogger(__name__)

_SETUP_SECONDS = 20.0
_MAX_REPORT = 64 * 1024


class Child:
    """Calls `on_ready` with None or the failure of its set-up, later `on_exit` with its status.

    `on_ready` always comes first. A set-up that takes too long is killed. The status is that of
    os.waitpid.
    """

    def __init__(
        self,
        loop: Loop,
        zygote: Zygote,
        plan: Plan,
        *,
        on_ready: Callable[[SetupFailed | None], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._collected = bytearray()
        self.pid, self._report = zygote.launch(plan)
        # It cannot be reaped before we do it, so the number is still this process's.
        self._pidfd = os.pidfd_open(self.pid)
        self._timer = loop.call_later(_SETUP_SECONDS, self.kill)
        os.set_blocking(self._report, False)
        loop.watch(self._report, READ, self._read_report)
        loop.watch(self._pidfd, READ, self._reap)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send it a signal; harmless once it has ended."""
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def _read_report(self) -> None:
        try:
            data = os.read(self._report, _MAX_REPORT)
        except BlockingIOError:
            return
        self._collected += data
        if not data or len(self._collected) > _MAX_REPORT:
            self._finish_report()

    def _finish_report(self) -> None:
        if self._report < 0:
            return
        self._loop.unwatch(self._report)
        os.close(self._report)
        self._report = -1
        self._timer.cancel()
        try:
            check_report(bytes(self._collected))
        except SetupFailed as failure:
            self.kill()
            self._on_ready(failure)
        else:
            self._on_ready(None)

    def _reap(self) -> None:
        if self._report >= 0:
            self._read_report()
            self._finish_report()
        _, status = os.waitpid(self.pid, 0)
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._on_exit(status)
