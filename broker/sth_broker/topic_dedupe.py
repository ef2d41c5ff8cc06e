"""Idempotent publishing: which batches of a producer a Topic has taken already.

A producer numbers its records. What follows is stored, what was stored answers its old offset, a
gap is refused, and an older epoch than the last seen is fenced off. Pure: the log persists it,
since every stored batch names its producer, epoch and sequence; a snapshot spares reading it all.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from sth_broker.store.interface import Json
from sth_protocol.batch import Header
from sth_protocol.errors import ProducerFenced, SequenceGap

REMEMBERED_BATCHES = 64
IDLE_MS = 7 * 24 * 60 * 60 * 1000
# The producers of one HTTP request each: nobody can send again what they sent.
UNNUMBERED_EPOCH = 0


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Stored before. `offset`: of its first record, None if that is forgotten."""

    offset: int | None


@dataclass(slots=True)
class _Row:
    """`begin`: the first sequence that is known to have been stored, nothing is known of those
    before it; `sequences` and `offsets`: where the last batches began, one behind the other."""

    epoch: int
    begin: int
    next_sequence: int
    last_ms: int
    sequences: "array[int]" = field(default_factory=lambda: array("Q"))
    offsets: "array[int]" = field(default_factory=lambda: array("Q"))


class Producers:
    """The producers of one Topic. Times in ms since 1970."""

    def __init__(self) -> None:
        self._rows: dict[bytes, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def next_sequence(self, producer: bytes, epoch: int) -> int:
        """What is expected next; 0 of a producer or epoch that is not known. ProducerFenced."""
        row = self._rows.get(producer)
        if row is None or row.epoch < epoch:
            return 0
        _refuse_older(row, epoch)
        return row.next_sequence

    def admit(self, header: Header, *, now_ms: int) -> Duplicate | None:
        """None if the batch is new. SequenceGap, ProducerFenced. The first batch of a producer or
        epoch that is not known may begin anywhere: it may have been forgotten here."""
        row = self._rows.get(header.producer)
        if header.epoch == UNNUMBERED_EPOCH or row is None or row.last_ms + IDLE_MS < now_ms:
            return None
        _refuse_older(row, header.epoch)
        if row.epoch < header.epoch or header.base_sequence == row.next_sequence:
            return None
        if header.next_sequence > row.next_sequence:
            overlap = header.base_sequence < row.next_sequence
            raise SequenceGap(
                f"records {header.base_sequence} to {header.next_sequence - 1} of the producer"
                f" {'overlap with' if overlap else 'leave a gap after'} {row.next_sequence - 1}",
                hint="send again from the sequence that the Topic expects",
            )
        return _find(row, header)

    def stored(self, header: Header, *, now_ms: int) -> None:
        """Take note of a batch that has its offset."""
        if header.epoch == UNNUMBERED_EPOCH:
            return
        row = self._rows.get(header.producer)
        if row is None or row.epoch != header.epoch or row.next_sequence != header.base_sequence:
            row = self._rows[header.producer] = _Row(header.epoch, header.base_sequence, 0, 0)
        row.next_sequence = header.next_sequence
        row.last_ms = now_ms
        row.sequences.append(header.base_sequence)
        row.offsets.append(header.base_offset)
        if len(row.sequences) > REMEMBERED_BATCHES:
            del row.sequences[0], row.offsets[0]

    def expire(self, *, now_ms: int) -> None:
        """Forget the producers that were idle for seven days."""
        idle = [key for key, row in self._rows.items() if row.last_ms + IDLE_MS < now_ms]
        for producer in idle:
            del self._rows[producer]

    def to_value(self) -> list[Json]:
        """As plain JSON."""
        return [
            {
                "producer": producer.hex(),
                "epoch": row.epoch,
                "begin": row.begin,
                "next": row.next_sequence,
                "last_ms": row.last_ms,
                "sequences": row.sequences.tolist(),
                "offsets": row.offsets.tolist(),
            }
            for producer, row in self._rows.items()
        ]

    @classmethod
    def from_value(cls, values: Iterable[Json]) -> "Producers":
        """What `to_value` gave."""
        producers = cls()
        for each in values:
            producers._rows[bytes.fromhex(each["producer"])] = _Row(
                each["epoch"],
                each["begin"],
                each["next"],
                each["last_ms"],
                array("Q", each["sequences"]),
                array("Q", each["offsets"]),
            )
        return producers


def _refuse_older(row: _Row, epoch: int) -> None:
    if epoch < row.epoch:
        raise ProducerFenced(
            f"the producer has published in epoch {row.epoch}; this is epoch {epoch}",
            hint="only its newest run may publish",
        )


def _find(row: _Row, header: Header) -> Duplicate:
    if header.base_sequence < row.begin:
        raise SequenceGap(
            f"of the producer nothing before record {row.begin} is known here",
            hint="send again from the sequence that the Topic expects",
        )
    if header.next_sequence <= row.sequences[0]:
        return Duplicate(None)
    found = bisect_left(row.sequences, header.base_sequence)
    if found < len(row.sequences) and row.sequences[found] == header.base_sequence:
        later = found + 1
        end = row.sequences[later] if later < len(row.sequences) else row.next_sequence
        if end == header.next_sequence:
            return Duplicate(row.offsets[found])
    raise SequenceGap(
        f"records {header.base_sequence} to {header.next_sequence - 1} of the producer were stored"
        " in other batches",
        hint="a batch that is sent again must be the same batch",
    )
