"""The program's logger, written to the log socket line by line."""

import json
import logging

from sth_sandbox.runners import frames
from sth_sandbox.runners.python.sockets import FrameSink

_LONGEST = 256 * 1024  # characters of a message; longer ones are cut


class LogHandler(logging.Handler):
    """Sends every record at once: what a program logged before it died is what is looked for.

    A log that nobody reads holds the program up when the socket is full, as a pipe would.
    """

    def __init__(self, sink: FrameSink) -> None:
        super().__init__()
        self._sink = sink
        self._offset = 0
        self._number = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = _line(record, self.format(record))
        except Exception:
            # Arguments that do not fit the message: logging's own way to tell the author.
            self.handleError(record)
            return
        header = frames.pack_header(
            frames.DATA,
            len(line),
            flags=frames.RECORDS,
            count=1,
            offset=self._offset,
            number=self._number,
        )
        self._offset += len(line)
        self._number += 1
        try:
            self._sink.send(header, line)
            self._sink.drain()
        except OSError:
            pass  # nobody reads logs any more: no reason to end a program


def program_logger(sink: FrameSink) -> logging.Logger:
    """The logger of the context. The root logger stays the program's own."""
    logger = logging.getLogger("sequence")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers[:] = [LogHandler(sink)]
    return logger


def _line(record: logging.LogRecord, message: str) -> bytes:
    fields = {
        "msg": message[:_LONGEST],
        "level": record.levelname,
        "ts": int(record.created * 1000),
        "from": record.name,
    }
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
