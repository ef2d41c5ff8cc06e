"""What went wrong in a program, without the frames of its runner."""

import sys
import traceback
from pathlib import Path
from typing import Any

_RUNNER = str(Path(__file__).resolve().parent)
_MOST_FRAMES = 50
_LONGEST_MESSAGE = 8192


def describe(error: BaseException, package: str) -> dict[str, Any]:
    """`{type, message, frames: [{file, line, function, source}]}`.

    The frames are the author's, outermost first, with paths relative to `package`; of a deep
    recursion the innermost 50.
    """
    found = [
        {
            "file": _relative(frame.filename, package),
            "line": frame.lineno,
            "function": frame.name,
            "source": frame.line or "",
        }
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_inside(frame.filename, package)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        source = (error.text or "").strip()
        file = _relative(error.filename, package)
        found.append(
            {"file": file, "line": error.lineno or 0, "function": "<module>", "source": source}
        )
    return {
        "type": type(error).__name__,
        "message": _text(error)[:_LONGEST_MESSAGE],
        "frames": found[-_MOST_FRAMES:],
    }


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its text cannot be told"


def print_error(error: BaseException) -> None:
    """Prints the traceback on stderr as the interpreter would have for the program alone."""
    report = traceback.TracebackException.from_exception(error)
    _strip(report)
    print_to = sys.stderr
    for line in report.format():
        print_to.write(line)
    print_to.flush()


def _strip(report: traceback.TracebackException | None) -> None:
    """Removes the runner's frames, and those of the import system that stand before the
    author's, from an exception and from those that it is chained to."""
    while report is not None:
        kept = [frame for frame in report.stack if not _is_own(frame.filename)]
        report.stack = traceback.StackSummary.from_list(kept)
        for each in report.exceptions or ():
            _strip(each)
        _strip(report.__cause__)
        report = report.__context__


def _is_own(filename: str) -> bool:
    return filename.startswith((_RUNNER, "<frozen importlib"))


def _is_inside(filename: str, package: str) -> bool:
    return filename.startswith(package.rstrip("/") + "/")


def _relative(filename: str, package: str) -> str:
    return filename[len(package.rstrip("/")) + 1 :] if _is_inside(filename, package) else filename
