"""When to try again: full jitter, so that agents that lost one broker do not return at once."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays in seconds, uniform between 0 and a bound that doubles from `first` to `longest`.

    `uniform`: a source such as random.uniform.
    """

    uniform: Callable[[float, float], float]
    first: float = 0.5
    longest: float = 30.0
    failures: int = 0

    def next_delay(self) -> float:
        """The delay after one more failure."""
        # The exponent is bounded too: an agent may fail for years.
        bound = min(self.longest, self.first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return self.uniform(0.0, bound)

    def succeeded(self) -> None:
        """The next failure begins anew."""
        self.failures = 0
