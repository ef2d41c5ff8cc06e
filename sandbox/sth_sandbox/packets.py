"""Packets of the spawner's socket: one JSON object each, descriptors beside it.

Both ends use this module. Received descriptors are close-on-exec, and a packet that is refused
leaves none of them open.
"""

import array
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

MAX_PACKET = 64 * 1024
MAX_DESCRIPTORS = 16
SOCKET_NAME = "spawner.sock"

Message = dict[str, Any]


class PacketError(Exception):
    """A packet that breaks the rules. The connection stays usable: packets have boundaries."""


def encode_packet(message: Mapping[str, object]) -> bytes:
    """The bytes of a message; PacketError if they are more than MAX_PACKET."""
    try:
        data = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise PacketError(f"not a JSON object: {error}") from error
    if len(data) > MAX_PACKET:
        raise PacketError(f"{len(data)} bytes are more than a packet's {MAX_PACKET}")
    return data


def decode_packet(data: bytes) -> Message:
    """The message in these bytes; PacketError if they are anything but one JSON object."""
    try:
        message = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise PacketError(f"not a JSON object: {error}") from error
    if not isinstance(message, dict):
        raise PacketError("not a JSON object")
    return message


def send_packet(
    connection: socket.socket, message: Mapping[str, object], descriptors: Sequence[int] = ()
) -> None:
    """Send one packet. BlockingIOError: nothing was sent. The descriptors stay the caller's."""
    send_encoded(connection, encode_packet(message), descriptors)


def send_encoded(connection: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """As `send_packet`, for what `encode_packet` made."""
    if len(descriptors) > MAX_DESCRIPTORS:
        raise PacketError(f"{len(descriptors)} descriptors are more than {MAX_DESCRIPTORS}")
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    connection.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive_packet(connection: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors, which become the caller's.

    EOFError: the peer is gone. PacketError: this packet was refused. BlockingIOError as usual.
    """
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, flags, _ = connection.recvmsg(
            MAX_PACKET + 1, space, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError as error:
        raise EOFError("the peer of the spawner's socket is gone") from error
    descriptors = _descriptors(ancillary)
    try:
        if flags & socket.MSG_TRUNC or len(data) > MAX_PACKET:
            raise PacketError(f"a packet has at most {MAX_PACKET} bytes")
        if flags & socket.MSG_CTRUNC:
            raise PacketError(f"a packet has at most {MAX_DESCRIPTORS} descriptors")
        if not data:
            raise EOFError("the peer of the spawner's socket is gone")
        return decode_packet(data), descriptors
    except BaseException:
        close_all(descriptors)
        raise


def connect(directory: str | os.PathLike[str]) -> socket.socket:
    """A connection to the spawner that listens in this directory; OSError if none does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with_socket_path(directory, connection.connect)
    except BaseException:
        connection.close()
        raise
    return connection


def with_socket_path(directory: str | os.PathLike[str], use: Callable[[str], object]) -> None:
    """Call `use` with a path of the socket that is short enough for a socket address.

    An address holds 107 bytes, less than many a home directory's path; a descriptor of the
    directory gives a short name for it.
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{descriptor}/{SOCKET_NAME}")
    finally:
        os.close(descriptor)


def close_all(descriptors: Iterable[int]) -> None:
    """Close these, whatever happens to one of them."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
