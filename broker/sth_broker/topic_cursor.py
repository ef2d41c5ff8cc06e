"""Where the plain readers of a Topic stand: those that name no group.

The Topic keeps one cursor, the highest offset that was handed to any of them. A reader that comes
while another is there begins at the cursor. One that comes when none is there begins at the
smallest offset that the last ones did not confirm, so that the tail of a reader that broke is given
again. The last ones are those that left within LINGER of the very last: a network that breaks takes
all of them, one after the other.

Pure: times are arguments, in seconds, and every offset is that of the next record.
"""

from collections import deque
from dataclasses import dataclass, field

LINGER = 1.0
# A reader without acknowledgements has what was handed to it if it is still there this much later.
CONFIRMED_AFTER = 1.0


@dataclass(slots=True, eq=False)
class PlainReader:
    """One reader. `confirmed`: everything before this offset has reached it."""

    start: int
    confirmed: int
    _handed: deque[tuple[float, int]] = field(default_factory=deque)


class PlainCursor:
    """The plain readers of one Topic. `cursor` and `resume` are what a store keeps."""

    def __init__(self, *, cursor: int = 0, resume: int = 0) -> None:
        self.cursor = max(cursor, resume)
        self._resume = resume
        self._present: list[PlainReader] = []
        self._left: list[tuple[float, int]] = []

    @property
    def present(self) -> int:
        """How many readers there are."""
        return len(self._present)

    @property
    def resume(self) -> int:
        """Everything before this offset has reached all that it was for."""
        return min((reader.confirmed for reader in self._present), default=self._resume)

    def join(self) -> PlainReader:
        start = self.cursor if self._present else self._resume
        reader = PlainReader(start, start)
        self._present.append(reader)
        return reader

    def leave(self, reader: PlainReader, *, now: float) -> None:
        """The reader is gone; what it did not confirm may be owed. Safe to call twice."""
        if reader not in self._present:
            return
        self._present.remove(reader)
        self._left = [each for each in self._left if each[0] >= now - LINGER]
        self._left.append((now, reader.confirmed))
        if not self._present:
            self._resume = min(confirmed for _, confirmed in self._left)
            self._left.clear()

    def hand(
        self, reader: PlainReader, end: int, *, now: float, acknowledged: bool = False
    ) -> None:
        """Records up to `end` were handed to the reader. `acknowledged`: it confirms them itself,
        otherwise time does."""
        self.cursor = max(self.cursor, end)
        if not acknowledged:
            reader._handed.append((now, end))

    def confirm(self, reader: PlainReader, end: int) -> None:
        """The reader has everything before `end`."""
        reader.confirmed = max(reader.confirmed, end)

    def settle(self, *, now: float) -> None:
        """Confirm what was handed long enough ago to readers that are still there."""
        for reader in self._present:
            self.settle_reader(reader, now=now)

    def settle_reader(self, reader: PlainReader, *, now: float) -> None:
        handed = reader._handed
        while handed and handed[0][0] + CONFIRMED_AFTER <= now:
            self.confirm(reader, handed.popleft()[1])

    def skip_to(self, start: int) -> None:
        """What stood before `start` is gone."""
        self.cursor = max(self.cursor, start)
        self._resume = max(self._resume, start)
