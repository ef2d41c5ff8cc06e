"""From what `run` returned into the output, as fast as Python lets it.

The loops differ by what they iterate and by whether items are converted; they are the only code of
the runner that is executed for every record.
"""

import threading
import time
from collections.abc import AsyncIterable, Iterable
from typing import Any

from sth_sandbox.runners.python.turns import Turns
from sth_sandbox.runners.python.writing import BATCH_BYTES, Output, misfit

_LATE_SECONDS = 0.001


async def collect(
    items: AsyncIterable[Any] | Iterable[Any], output: Output, *, turns: Turns
) -> None:
    """Sends every item. Raises what the program raises, or OutputTypeError."""
    if isinstance(items, AsyncIterable):
        if output.converter() is None:
            await _collect_text(items, output, turns)
        else:
            await _collect_converted(items, output, turns)
    else:
        await _collect_in_place(items, output, turns)


async def _sent(output: Output, turns: Turns) -> None:
    output.flush()
    await output.sink.drained()
    await turns.give()


async def _collect_text(items: AsyncIterable[Any], output: Output, turns: Turns) -> None:
    append = output.items.append
    size = 0
    async for item in items:
        append(item)
        try:
            size += len(item)
        except TypeError:
            raise misfit([item]) from None
        if size >= BATCH_BYTES:
            size = 0
            await _sent(output, turns)


async def _collect_converted(items: AsyncIterable[Any], output: Output, turns: Turns) -> None:
    convert = output.converter()
    assert convert is not None
    append = output.items.append
    size = 0
    async for item in items:
        piece = convert(item)
        append(piece)
        size += len(piece)
        if size >= BATCH_BYTES:
            size = 0
            await _sent(output, turns)


async def _collect_in_place(items: Iterable[Any], output: Output, turns: Turns) -> None:
    """From an ordinary iterator, which may block: what it gave before that leaves all the same."""
    convert = output.converter() or _as_text
    late = _LateFlush(output)
    collected = output.items
    size = 0
    for item in items:
        piece = convert(item)
        collected.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES:
            size = 0
            await _sent(output, turns)
        elif len(collected) == 1:
            late.arm()


def _as_text(item: Any) -> str:
    if isinstance(item, str):
        return item
    raise misfit([item])


class _LateFlush:
    """A thread that sends what an iterator gave when it has not gone on for a millisecond.

    Nothing else can: an ordinary iterator that blocks holds the only other thread.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._armed = threading.Event()
        self._started = False

    def arm(self) -> None:
        """Items are collected again."""
        self._armed.set()
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="sth-late-flush", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._armed.wait()
            self._armed.clear()
            time.sleep(_LATE_SECONDS)
            self._output.flush()
            self._output.sink.drain()
