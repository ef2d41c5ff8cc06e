"""Bytes from a file or stdin to the broker, and from the broker to stdout, as they are."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sth_client.choose import SHORTEST
from sth_client.context import LAST, Context
from sth_protocol.errors import NotFound

if TYPE_CHECKING:
    from sth_client.sync import ByteStream


@contextlib.contextmanager
def open_input(name: str) -> Iterator[io.FileIO]:
    """The file of that name, or stdin for "-". Unbuffered: what a person types goes out at once."""
    if name == LAST:
        yield io.FileIO(sys.stdin.fileno(), closefd=False)
        return
    try:
        file = io.FileIO(name)
    except OSError as error:
        raise NotFound(f"{name} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def copy_out(context: Context, stream: "ByteStream") -> int:
    """Everything of a stream to stdout; how many bytes that were."""
    count = 0
    with stream:
        for data in stream:
            context.output.data(data)
            count += len(data)
    return count


def keeps_running(instance: str) -> str:
    """What Ctrl-C says of an Instance whose streams were followed."""
    short = instance[:SHORTEST]
    return f"\nInstance {short} keeps running; `sth inst stop {short}` ends it."
