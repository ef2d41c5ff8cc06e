"""The spawner's log: a file that is renamed aside when it is full, so two sizes at most.

By descriptor number, not by file object: a cloned child that lets go of the handler must not
close a descriptor that is its own by then.
"""

import logging
import os

_MAX_BYTES = 1024 * 1024


class BoundedLog(logging.Handler):
    def __init__(self, path: str, *, max_bytes: int = _MAX_BYTES) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            if self._size and self._size + len(line) > self._max_bytes:
                os.close(self._descriptor)
                os.replace(self._path, self._path + ".1")
                self._open()
            self._size += os.write(self._descriptor, line)
        except OSError:
            # A full disk must not end the spawner, and there is nowhere else to say it.
            pass

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
