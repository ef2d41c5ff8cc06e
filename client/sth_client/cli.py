"""The `sth` command: words in, exit code out. The only module of the client that prints."""

import logging
import os
import sys
from collections.abc import Mapping, Sequence

from sth_protocol.errors import BadRequest, SthError

INTERRUPTED = 130
# As a shell has it for a program that SIGPIPE ended.
READER_GONE = 141


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Nothing is raised: whatever goes wrong is told and becomes an exit code."""
    words = sys.argv[1:] if words is None else words
    if words == ["--version"] or words == ["-V"]:
        # Before anything is imported for it.
        from sth_client.version import version

        print(f"sth {version()}")
        return 0
    return _run(words, os.environ)


def _run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    from sth_client import parsing
    from sth_client.context import Context
    from sth_client.output import ReaderGone, open_output, silence_stdout

    output = open_output(form="table", quiet=False, environ=environ)
    context: Context | None = None
    try:
        parsed = parsing.parse(words)
        if isinstance(parsed, parsing.Help):
            output.data(parsed.text.encode())
            # Help that was asked for is data; a missing command is a mistake.
            return 0 if words else BadRequest.exit_code
        _set_up_logging(parsed.options.verbose)
        context = Context(parsed.options, environ)
        return parsed.command.run(context)
    except SthError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        if context is not None and context.interrupted:
            output.note(context.interrupted)
        return INTERRUPTED
    except ReaderGone:
        silence_stdout()
        return READER_GONE


def _set_up_logging(verbose: int) -> None:
    level = {0: logging.ERROR, 1: logging.INFO}.get(verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    sys.exit(main())
