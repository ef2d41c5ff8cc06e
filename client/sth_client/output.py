"""What a command says, and where: data on stdout, everything else on stderr.

Names and messages come from elsewhere: in tables and notes their control characters are made
visible, so that nobody can draw on a terminal by the name of a Sequence. Streams pass unchanged.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Generic, TextIO, TypeVar

from sth_client.fields import Raw
from sth_client.shown import Rows, flat
from sth_protocol.errors import SthError

Item = TypeVar("Item")


class ReaderGone(Exception):
    """What reads our stdout has closed it: nothing is left to do, and nothing to say."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    heading: str
    text: Callable[[Item], str]


class Output:
    """`form`: table, json, jsonl or name. `quiet` leaves out notes, not warnings or errors."""

    def __init__(
        self, stdout: BinaryIO, stderr: TextIO, *, form: str, quiet: bool, colour: bool
    ) -> None:
        self.form = form
        self._stdout = stdout
        self._stderr = stderr
        self._quiet = quiet
        self._colour = colour

    def data(self, data: bytes) -> None:
        """Bytes as they are, at once."""
        try:
            self._stdout.write(data)
            self._stdout.flush()
        except BrokenPipeError:
            raise ReaderGone from None

    def line(self, text: str) -> None:
        self.data(text.encode("utf-8", "replace") + b"\n")

    def items(
        self,
        items: Sequence[Item],
        columns: Sequence[Column[Item]],
        *,
        raw: Callable[[Item], Raw],
        name: Callable[[Item], str],
    ) -> None:
        """A list: a table, its JSON, a JSON object a line, or ids alone."""
        if self.form == "json":
            self.json([raw(each) for each in items])
        elif self.form == "jsonl":
            for each in items:
                self.line(_compact(raw(each)))
        elif self.form == "name":
            for each in items:
                self.line(name(each))
        else:
            rows = [[column.text(each) for column in columns] for each in items]
            self._table([column.heading for column in columns], rows)

    def item(self, raw: Raw, *, name: str, rows: Rows | None = None) -> None:
        """One object: its fields a line each, its JSON, or its id alone. `rows`: those lines, where
        they are not simply the fields."""
        if self.form == "json":
            self.json(raw)
        elif self.form == "jsonl":
            self.line(_compact(raw))
        elif self.form == "name":
            self.line(name)
        else:
            shown = flat(raw) if rows is None else rows
            self._table([], [[f"{key}:" if key else " ", text] for key, text in shown])

    def json(self, value: object) -> None:
        self.line(json.dumps(value, indent=2, ensure_ascii=False))

    def note(self, text: str) -> None:
        if not self._quiet:
            self._say(text)

    def warning(self, text: str) -> None:
        self._say(f"{self._marked('warning:', 33)} {printable(text)}")

    def error(self, error: SthError) -> None:
        """What happened and why, then what to do."""
        self._say(f"{self._marked('error:', 31)} {printable(error.message)}")
        if error.hint:
            self._say(f"{self._marked('hint:', 36)} {printable(error.hint)}")

    def ask(self, question: str) -> bool:
        """A question whose answer is yes or no; no at the end of input."""
        self._stderr.write(f"{printable(question)} [y/N] ")
        self._stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _say(self, text: str) -> None:
        # Nobody reads it: the exit code says it too.
        try:
            self._stderr.write(f"{text}\n")
            self._stderr.flush()
        except OSError:
            pass

    def _marked(self, word: str, colour: int) -> str:
        return f"\x1b[1;{colour}m{word}\x1b[0m" if self._colour else word

    def _table(self, headings: list[str], rows: list[list[str]]) -> None:
        lines = [[printable(cell) or "-" for cell in row] for row in rows]
        if headings:
            lines.insert(0, headings)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            self.line("  ".join(cells).rstrip())


def open_output(*, form: str, quiet: bool, environ: Mapping[str, str]) -> Output:
    """The process's own streams. Colour only on a terminal, and not with NO_COLOR."""
    colour = not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and sys.stderr.isatty()
    return Output(sys.stdout.buffer, sys.stderr, form=form, quiet=quiet, colour=colour)


def silence_stdout() -> None:
    """After ReaderGone: what is still buffered must not fail again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """The text with its control characters visible."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
