"""One agent at the spawner's socket: packets in, answers and events out, never waiting for it."""

import collections
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sth_sandbox import packets
from sth_sandbox.errors import SandboxError, bad_request, internal
from sth_sandbox.loop import READ, WRITE, Loop

logger = logging.getLogger(__name__)

# Packets kept for an agent that does not read. Beyond, it is let go: it may connect again, list.
_MAX_QUEUED = 1024

Handler = Callable[["Connection", dict[str, Any], list[int]], Mapping[str, object] | None]


class Connection:
    """Requests go to `handler`, which returns the answer's fields, or None to `answer` later.

    The descriptors of a request are the handler's until it returns; then they are closed.
    """

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        handler: Handler,
        *,
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self._loop = loop
        self._socket = peer
        self._handler = handler
        self._on_closed = on_closed
        self._queue: collections.deque[tuple[bytes, list[int]]] = collections.deque()
        self._closed = False
        peer.setblocking(False)
        loop.watch(peer.fileno(), READ, self._receive)

    def answer(
        self, number: object, fields: Mapping[str, object], descriptors: Sequence[int] = ()
    ) -> None:
        self._send({"id": number, "ok": True, **fields}, descriptors)

    def refuse(self, number: object, error: SandboxError) -> None:
        self._send({"id": number, "error": error.to_wire()})

    def event(self, name: str, fields: Mapping[str, object]) -> None:
        self._send({"event": name, **fields})

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        for _, descriptors in self._queue:
            packets.close_all(descriptors)
        self._queue.clear()
        self._on_closed(self)

    def _receive(self) -> None:
        """One packet a turn: others get theirs, however many one agent sends."""
        try:
            message, descriptors = packets.receive_packet(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except packets.PacketError as error:
            self.refuse(None, bad_request(str(error)))
            return
        except (EOFError, OSError):
            self.close()
            return
        try:
            self._handle(message, descriptors)
        finally:
            packets.close_all(descriptors)

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> None:
        number = message.get("id")
        if number is not None and not isinstance(number, int | str):
            self.refuse(None, bad_request("id: a number or a string is wanted"))
            return
        try:
            fields = self._handler(self, message, descriptors)
        except SandboxError as error:
            self.refuse(number, error)
        except Exception as error:
            logger.exception("request %r failed", message.get("op"))
            self.refuse(number, internal(f"{type(error).__name__}: {error}"))
        else:
            if fields is not None:
                self.answer(number, fields)

    def _send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        """In order; what the agent does not take at once is kept, descriptors and all."""
        if self._closed:
            return
        data = packets.encode_packet(message)
        if not self._queue:
            try:
                packets.send_encoded(self._socket, data, descriptors)
                return
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.close()
                return
        if len(self._queue) >= _MAX_QUEUED:
            logger.warning("an agent does not read its answers: disconnected")
            self.close()
            return
        self._queue.append((data, [os.dup(each) for each in descriptors]))
        # No more requests of this agent until it has read the answers.
        self._loop.watch(self._socket.fileno(), WRITE, self._flush)

    def _flush(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                packets.send_encoded(self._socket, data, descriptors)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()
            packets.close_all(descriptors)
        self._loop.watch(self._socket.fileno(), READ, self._receive)
