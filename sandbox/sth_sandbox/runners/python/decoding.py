"""Payloads of input frames as what the program is given: lines, objects or chunks.

A batch keeps the raw pieces beside the items, so that how far the program has come can be told in
bytes at any moment without counting anything for a record.
"""

import json
import json.scanner
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from sth_sandbox.runners.frames import NDJSON, OCTET, TEXT, TEXT_NDJSON, Frame

_scan = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[arg-type]  # a wrong stub
_SHOWN = 80  # characters of a line that is no JSON


class Batch:
    """Items that came together, and where they stand in the stream."""

    __slots__ = ("_end", "_end_number", "_handed", "_number", "_offset", "_pieces", "items")

    def __init__(
        self,
        pieces: list[bytes],
        handed: Iterator[Any],
        items: Iterator[Any],
        *,
        start: tuple[int, int],
        end: tuple[int, int],
    ) -> None:
        """`handed` is a list's iterator with one item for each piece, from which `items` draws.

        `start` and `end`: offset and number of the first piece, and of what follows the last.
        """
        self._pieces = pieces
        self._handed = handed
        self._offset, self._number = start
        self._end, self._end_number = end
        self.items = items

    def position(self, *, asking: bool) -> tuple[int, int]:
        """Offset and number up to which the program is done; never more than that.

        `asking`: it asks for more, so that it is done with the last one that it got.
        """
        left = self._handed.__length_hint__()  # type: ignore[attr-defined]
        if asking and not left:
            return self._end, self._end_number
        done = max(len(self._pieces) - left - (0 if asking else 1), 0)
        return self._offset + sum(map(len, self._pieces[:done])), self._number + done


class Chunks:
    """application/octet-stream: every frame's payload as it came."""

    def feed(self, frame: Frame) -> Batch | None:
        """The batch that a frame completes."""
        header, payload = frame
        if not payload:
            return None
        pieces = [payload]
        handed = iter(pieces)
        start = header.offset, header.number
        end = header.offset + header.length, header.number + header.count
        return Batch(pieces, handed, handed, start=start, end=end)

    def finish(self) -> Batch | None:
        """What is left when the stream has ended."""
        return None


class Lines:
    """text/plain: lines with their newline.

    Only whole lines are decoded, so that no character is cut. Bytes that are not UTF-8 become
    U+FFFD.
    """

    def __init__(self) -> None:
        self._cut: list[bytes] = []
        self._offset = 0
        self._number = 0

    def feed(self, frame: Frame) -> Batch | None:
        """The batch that a frame completes."""
        header, payload = frame
        lines = BytesIO(payload).readlines()
        if not self._cut:
            self._offset = header.offset
            if header.count:
                self._number = header.number
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if lines and self._cut:
            self._cut.append(lines[0])
            lines[0] = b"".join(self._cut)
            self._cut.clear()
        if rest:
            self._cut.append(rest)
        return self._batch(lines, header.offset + header.length - len(rest))

    def finish(self) -> Batch | None:
        """The last line, if it has no newline."""
        rest = b"".join(self._cut)
        self._cut.clear()
        return self._batch([rest] if rest else [], self._offset + len(rest))

    def _batch(self, lines: list[bytes], end: int) -> Batch | None:
        if not lines:
            return None
        start = self._offset, self._number
        self._offset = end
        self._number += len(lines)
        return self._made(lines, start, (end, self._number))

    def _made(self, lines: list[bytes], start: tuple[int, int], end: tuple[int, int]) -> Batch:
        try:
            texts = list(map(bytes.decode, lines))
        except UnicodeDecodeError:
            texts = [line.decode("utf-8", "replace") for line in lines]
        handed = iter(texts)
        return Batch(lines, handed, handed, start=start, end=end)


class Objects(Lines):
    """application/x-ndjson: the value of every line that is not blank."""

    def _made(self, lines: list[bytes], start: tuple[int, int], end: tuple[int, int]) -> Batch:
        records = [line for line in lines if not line.isspace()]
        handed = iter(records)
        return Batch(records, handed, map(_value, handed), start=start, end=end)


Decoder = Chunks | Lines


def decoder_for(content_type: str) -> Decoder:
    """TypeError if no program can be given this type."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == OCTET:
        return Chunks()
    if kind == TEXT:
        return Lines()
    if kind in (NDJSON, TEXT_NDJSON):
        return Objects()
    raise TypeError(
        f"the input is {content_type!r}, which is not read here; send {TEXT}, {NDJSON} or {OCTET}"
    )


def _value(line: bytes) -> Any:
    """The JSON value of a line. The scanner is a third of the time of json.loads."""
    try:
        text = line.decode()
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            return json.loads(text)  # blanks before it, or no JSON at all
        rest = text[end:]
        if rest == "\n" or not rest.strip(" \t\r\n"):
            return value
        return json.loads(text)
    except ValueError as error:
        shown = line[:_SHOWN].decode("utf-8", "replace")
        raise ValueError(f"a line of the input is no JSON: {shown!r}: {error}") from None
