"""Prints docs/reference/errors.md, made from the tree of errors.

.venv/bin/python -m scripts.lib.reference_errors > docs/reference/errors.md
"""

import sys
from collections.abc import Iterator

# It adds its own errors to the tree.
import sth_protocol.lifecycle  # noqa: F401
from sth_protocol import errors

HEAD = """\
# Errors

Made from the code by `scripts/lib/reference_errors.py`; a test compares.

Every error has a code, which never changes its meaning, an HTTP status, an exit code of the
commands, and a hint: what to do about it. The body of an HTTP error is
`{"error", "code", "message", "hint"}`; `error` repeats the message for the original's clients. On
the links the same travels as `{"code", "message", "hint"}`.

The tree: an error counts as what stands above it, too.
"""

EXIT_CODES = (
    (0, "done"),
    (1, "failed"),
    (2, "wrong use, or input that cannot be used"),
    (3, "not found"),
    (4, "not allowed"),
    (5, "conflict with the present state"),
    (6, "unreachable"),
    (7, "out of time"),
    (8, "the Instance failed"),
    (78, "wrong configuration, or a machine that lacks something"),
    (130, "interrupted by Ctrl-C"),
    (141, "what read the output has closed it"),
)


def text() -> str:
    """The whole document."""
    return "\n".join([*_tree(), *_codes(), *_exit_codes()])


def _tree() -> Iterator[str]:
    documentation = errors.__doc__ or ""
    yield HEAD
    yield "```"
    for line in documentation.splitlines():
        if line.startswith("    "):
            yield line[4:]
    yield "```"
    yield ""


def _codes() -> Iterator[str]:
    yield "| code | HTTP | exit | hint, if no better one is known |"
    yield "|---|---|---|---|"
    kinds = {kind.code: kind for kind in errors.tree() if kind is not errors.SthError}
    for code, kind in sorted(kinds.items()):
        yield f"| {code} | {kind.http_status} | {kind.exit_code} | {kind.default_hint} |"
    yield ""


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes"
    yield "| code | meaning |"
    yield "|---|---|"
    for code, meaning in EXIT_CODES:
        yield f"| {code} | {meaning} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(text())
