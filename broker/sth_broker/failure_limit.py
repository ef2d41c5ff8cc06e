"""How often an address may be wrong before it is not even looked at. Pure: time is an argument."""

from collections import OrderedDict

BURST = 10
SECONDS_PER_FAILURE = 6.0
_REMEMBERED = 4096


class FailureLimit:
    """A bucket for each address: `BURST` failures at once, then one more every six seconds."""

    def __init__(self) -> None:
        # When the bucket of an address will be empty again, the oldest entry first.
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def seconds_to_wait(self, address: str, *, now: float) -> float:
        """0 if the address may try now."""
        full = self._empty_at.get(address, now) - now
        return max(0.0, full - (BURST - 1) * SECONDS_PER_FAILURE)

    def note_failure(self, address: str, *, now: float) -> None:
        """The address was wrong once more."""
        start = max(now, self._empty_at.get(address, now))
        self._empty_at[address] = start + SECONDS_PER_FAILURE
        self._empty_at.move_to_end(address)
        if len(self._empty_at) > _REMEMBERED:
            self._empty_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._empty_at)
