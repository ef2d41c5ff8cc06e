"""The program's output, collected into batches and sent as frames.

A batch leaves when it is large enough or when the program waits, whichever comes first: see
`turns.calling_at_each_wait`. Types are checked for a batch at a time, as it is joined.
"""

import json
import json.encoder
import threading
from collections.abc import Callable
from typing import Any

from sth_sandbox.runners import frames
from sth_sandbox.runners.frames import MAX_PAYLOAD, NDJSON, OCTET, TEXT, TEXT_NDJSON
from sth_sandbox.runners.python.sockets import FrameSink

BATCH_BYTES = 64 * 1024

# What json.JSONEncoder makes anew for every call to `encode`: made once, it takes two thirds of
# the time. It refuses circles and what JSON has no word for (NaN), and writes ASCII alone.
_encode = json.encoder.c_make_encoder(  # type: ignore[attr-defined]  # the stub lacks it
    {},
    json.JSONEncoder().default,
    json.encoder.encode_basestring_ascii,
    None,
    ":",
    ",",
    False,
    False,
    False,
)


class OutputTypeError(TypeError):
    """The program gave out what its content type cannot carry."""


class Output:
    """What the program gives out. Those who collect append to `items` and call `flush`."""

    def __init__(self, sink: FrameSink) -> None:
        self.sink = sink
        self.content_type = TEXT
        self.items: list[Any] = []
        self._lock = threading.Lock()
        self._offset = 0
        self._number = 0
        self._whole = True  # whether what was sent ends with a whole record
        self._ended = False

    @property
    def lines(self) -> bool:
        """Whether records are lines, rather than nothing but bytes."""
        return self.content_type != OCTET

    def declare(self, content_type: str, provides: dict[str, Any]) -> None:
        """Sends what the output is. OutputTypeError if it is not one of the four types."""
        if content_type not in (TEXT, NDJSON, TEXT_NDJSON, OCTET):
            raise OutputTypeError(
                f"{content_type!r} is no type of output; use {TEXT}, {NDJSON} or {OCTET}"
            )
        self.content_type = content_type
        described = json.dumps({"content_type": content_type, "provides": provides})
        self.sink.send(frames.pack_frame(frames.TYPE, described.encode()))

    def converter(self) -> Callable[[Any], str | bytes] | None:
        """What must be done to an item before it is collected; None: nothing, it is text."""
        if self.content_type == TEXT:
            return None
        return as_chunk if self.content_type == OCTET else as_json_line

    def flush(self) -> None:
        """Sends what is collected. OutputTypeError if an item does not fit the content type."""
        if not self.items:
            return
        with self._lock:
            batch = self.items[:]
            payload = self._joined(batch)
            # Another thread may have appended meanwhile.
            del self.items[: len(batch)]
            self._send(payload)

    def end(self) -> None:
        """Sends what is collected and the end of the stream, once."""
        self.flush()
        if not self._ended:
            self._ended = True
            header = frames.pack_header(frames.END, 0, offset=self._offset, number=self._number)
            self.sink.send(header)

    def _joined(self, batch: list[Any]) -> bytes:
        if not self.lines:
            return batch[0] if len(batch) == 1 else b"".join(batch)
        try:
            return "".join(batch).encode()
        except TypeError:
            raise misfit(batch) from None
        except UnicodeEncodeError as error:
            raise OutputTypeError(
                f"text of the output cannot be written as UTF-8: {error}"
            ) from None

    def _send(self, payload: bytes) -> None:
        if len(payload) <= MAX_PAYLOAD:
            self._send_frame(payload)
            return
        start = 0
        while start < len(payload):
            end = self._cut(payload, start)
            self._send_frame(payload[start:end])
            start = end

    def _cut(self, payload: bytes, start: int) -> int:
        """Where a frame that begins at `start` ends: after a record if one ends in reach."""
        end = start + MAX_PAYLOAD
        if end >= len(payload):
            return len(payload)
        newline = payload.rfind(b"\n", start, end) if self.lines else -1
        return newline + 1 if newline >= 0 else end

    def _send_frame(self, payload: bytes) -> None:
        if not payload:
            return
        flags = count = 0
        if self.lines:
            count = payload.count(b"\n")
            whole = payload.endswith(b"\n")
            if whole and self._whole:
                flags = frames.RECORDS
            self._whole = whole
        header = frames.pack_header(
            frames.DATA,
            len(payload),
            flags=flags,
            count=count,
            offset=self._offset,
            number=self._number,
        )
        self._offset += len(payload)
        self._number += count
        self.sink.send(header, payload)


def as_chunk(item: Any) -> bytes:
    """Bytes of their own: what the program reuses must not change under a batch."""
    if type(item) is bytes:
        return item
    try:
        return bytes(memoryview(item))
    except TypeError:
        raise OutputTypeError(
            f"the output is {OCTET}, whose items are bytes, not {type(item).__name__}"
        ) from None


def as_json_line(item: Any) -> str:
    """One line of JSON."""
    try:
        return "".join(_encode(item, 0)) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputTypeError(f"an item of the output cannot be written as JSON: {error}") from None


def misfit(batch: list[Any]) -> OutputTypeError:
    """What to tell the author of a text output with other items."""
    wrong = next((item for item in batch if not isinstance(item, str)), None)
    return OutputTypeError(
        f"the output is {TEXT}, whose items are str, not {type(wrong).__name__}; "
        f"say another type with provides = {{'contentType': …}} or @sequence(output=…)"
    )
