"""The content types of Topics, and how a stream of bytes becomes batches of each.

Lines of ndjson stay whole; text and octets are chunks, text cut after a newline where one comes
within 64 KiB. Costs are per piece that arrives, never per line. Pure.
"""

from dataclasses import dataclass
from typing import Literal

from sth_protocol import batch
from sth_protocol.errors import TooLarge, UnsupportedMediaType

Kind = Literal["ndjson", "text", "octet"]

NDJSON = "application/x-ndjson"
BATCH_BYTES = 256 * 1024
TEXT_CUT_BYTES = 64 * 1024
_KINDS: dict[str, Kind] = {
    "text/x-ndjson": "ndjson",
    NDJSON: "ndjson",
    "text/plain": "text",
    "application/octet-stream": "octet",
}
_LIMITS: dict[Kind, int] = {"ndjson": batch.MAX_PAYLOAD + 1, "text": TEXT_CUT_BYTES, "octet": 1}


def normalised(content_type: str) -> str:
    """Without parameters and in lower case; UnsupportedMediaType if no Topic can have it."""
    plain = content_type.partition(";")[0].strip().lower()
    if plain not in _KINDS:
        raise UnsupportedMediaType(
            f"'{content_type[:80]}' is no content type of a Topic",
            hint=f"use one of {', '.join(_KINDS)}",
        )
    return plain


def kind_of(content_type: str) -> Kind:
    """The kind of a normalised content type; both names of ndjson are the same kind."""
    return _KINDS[content_type]


@dataclass(frozen=True, slots=True)
class Piece:
    """What becomes one batch: a payload and how many records it holds."""

    payload: memoryview
    count: int


class Former:
    """Cuts what arrives of one stream into pieces that can be stored."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._chunks: list[bytes] = []
        self._size = 0
        self._cuttable = False

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def ready(self) -> bool:
        """Whether something can be taken, or must be refused."""
        return self._size > 0 and (self._cuttable or self._size >= self._limit)

    @property
    def _limit(self) -> int:
        """Without a place to cut, that many bytes can wait."""
        return _LIMITS[self._kind]

    def add(self, chunk: bytes) -> None:
        """The next bytes of the stream, any number of them."""
        if chunk:
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._cuttable = self._cuttable or b"\n" in chunk

    def finish(self) -> None:
        """The stream ended whole: a last line of ndjson gets the newline that it lacks."""
        if self._kind == "ndjson" and self._size and not self._chunks[-1].endswith(b"\n"):
            self.add(b"\n")

    def take(self, *, everything: bool = False) -> list[Piece]:
        """The pieces that are complete; with `everything` also text that waits for a newline.
        TooLarge for a line that no batch can hold, once the lines before it were taken."""
        if not self.ready and not (everything and self.holds_text):
            return []
        data = b"".join(self._chunks)
        view = memoryview(data)
        pieces: list[Piece] = []
        start = 0
        while start < len(data):
            end = self._cut(data, start)
            if end == start and everything and self._kind == "text":
                end = len(data)
            if end == start:
                break
            pieces.append(self._piece(data, view, start, end))
            start = end
        self._keep(data[start:])
        if not pieces:
            raise TooLarge(
                f"a line of more than {batch.MAX_PAYLOAD} bytes",
                hint="split it, or use a Topic of application/octet-stream",
            )
        return pieces

    @property
    def holds_text(self) -> bool:
        """Whether text waits."""
        return self._kind == "text" and self._size > 0

    def _keep(self, rest: bytes) -> None:
        self._chunks = [rest] if rest else []
        self._size = len(rest)
        self._cuttable = b"\n" in rest

    def _cut(self, data: bytes, start: int) -> int:
        """Where the piece that begins at `start` ends; `start` if it is not complete."""
        limit = start + BATCH_BYTES
        if self._kind == "octet":
            return min(limit, len(data))
        end = data.rfind(b"\n", start, limit) + 1
        if end > start:
            return end
        if self._kind == "text":
            full = len(data) - start >= TEXT_CUT_BYTES
            return _character_edge(data, start, start + TEXT_CUT_BYTES) if full else start
        end = data.find(b"\n", limit - 1) + 1
        return end if start < end <= start + batch.MAX_PAYLOAD else start

    def _piece(self, data: bytes, view: memoryview, start: int, end: int) -> Piece:
        count = data.count(b"\n", start, end) if self._kind == "ndjson" else 1
        return Piece(view[start:end], count)


def _character_edge(data: bytes, start: int, end: int) -> int:
    """The last place up to `end` that is not inside a character of UTF-8; `end` if there is none
    near, as in text of another encoding."""
    for edge in range(end, max(start, end - 4), -1):
        if edge == len(data) or data[edge] & 0xC0 != 0x80:
            return edge
    return end
