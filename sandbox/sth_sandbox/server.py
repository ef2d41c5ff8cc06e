"""The operations of the spawner's socket."""

import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from sth_sandbox import spec
from sth_sandbox.cache import Cache
from sth_sandbox.channels import STREAMS
from sth_sandbox.connection import Connection
from sth_sandbox.errors import SandboxError, bad_request, conflict, insufficient, not_found, refused
from sth_sandbox.instances import Instance, Instances, limits_report
from sth_sandbox.loop import READ, Loop
from sth_sandbox.plans import NODE_RUNNER, Machine, package_path
from sth_sandbox.report import Report, missing, refusal
from sth_sandbox.zygote import Zygote

logger = logging.getLogger(__name__)

VERSION = 1
_PAGE = 100
_MAX_CONNECTIONS = 32

Fields = Mapping[str, object]


class Server:
    """`probe` finds out again what the machine enforces: something may have been repaired.

    `agent_user`: whose connections are taken, beside those of the spawner's own user.
    """

    def __init__(
        self,
        loop: Loop,
        zygote: Zygote,
        machine: Machine,
        cache: Cache,
        *,
        report: Report,
        probe: Callable[[], Report],
        agent_user: int,
    ) -> None:
        self._loop = loop
        self._machine = machine
        self._cache = cache
        self._report = report
        self._probe = probe
        self._agent_user = agent_user
        self._connections: set[Connection] = set()
        self._stopping: list[tuple[Connection, object]] | None = None
        self._instances = Instances(loop, zygote, machine, on_exit=self._instance_ended)
        self._operations: dict[str, Callable[[Connection, Any, list[int]], Fields | None]] = {
            "hello": self._hello,
            "have": self._have,
            "unpack": self._unpack,
            "discard": self._discard,
            "start": self._start,
            "list": self._list,
            "attach": self._attach,
            "signal": self._signal,
            "close": self._close,
            "remove": self._remove,
            "shutdown": self._shutdown,
        }

    def listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), READ, lambda: self._accept(listener))

    def stop(self, *, grace: float) -> None:
        """Stop all Instances: SIGTERM, after `grace` seconds SIGKILL; then end the loop."""
        self._begin_stopping(grace)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("no connection could be accepted: %s", error)
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            logger.warning("too many connections: one was turned away")
            peer.close()
            return
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, user, _ = struct.unpack("3i", credentials)
        if user & 0xFFFFFFFF not in (os.geteuid(), self._agent_user):
            logger.warning("process %d of user %d was turned away", pid, user)
            peer.close()
            return
        connection = Connection(
            self._loop, peer, self._dispatch, on_closed=self._connections.discard
        )
        self._connections.add(connection)

    def _dispatch(
        self, connection: Connection, message: dict[str, Any], descriptors: list[int]
    ) -> Fields | None:
        name = message.get("op")
        operation = self._operations.get(name) if isinstance(name, str) else None
        if operation is None:
            known = ", ".join(self._operations)
            raise bad_request(f"op: one of {known} is wanted")
        return operation(connection, message, descriptors)

    def _hello(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        if message.get("version") != VERSION:
            raise SandboxError(
                "VERSION_UNSUPPORTED",
                f"this spawner speaks version {VERSION}",
                hint="end its Instances and start the spawner of the same installation",
            )
        self._look_again()
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "sandboxed": self._machine.sandboxed,
            "node": bool(self._machine.host.node),
            "report": self._report,
        }

    def _look_again(self) -> None:
        if self._machine.sandboxed and missing(self._report):
            self._report = self._probe()

    def _have(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        return {"present": self._cache.has(spec.sha256(message))}

    def _unpack(
        self, connection: Connection, message: dict[str, Any], descriptors: list[int]
    ) -> None:
        if len(descriptors) != 1:
            raise bad_request("one descriptor, of the package, is wanted beside this")
        self._require_sandbox()
        number = message.get("id")

        def finished(result: Fields | SandboxError) -> None:
            if isinstance(result, SandboxError):
                connection.refuse(number, result)
            else:
                connection.answer(number, result)

        self._cache.unpack(spec.sha256(message), descriptors[0], finished)

    def _discard(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        sha256 = spec.sha256(message)
        if self._instances.uses(sha256):
            raise conflict("a running Instance uses this package")
        self._cache.discard(sha256)
        return {}

    def _start(self, connection: Connection, message: dict[str, Any], _: list[int]) -> None:
        wanted = spec.instance_spec(message)
        if self._stopping is not None:
            raise conflict("the spawner is being shut down")
        self._require_sandbox()
        if not self._cache.has(wanted.sha256):
            raise not_found(f"package {wanted.sha256[:12]} is not here: unpack it first")
        if wanted.language == "node":
            self._require_node()
        number = message.get("id")

        def ready(instance: Instance, error: SandboxError | None) -> None:
            if error is None:
                self._answer_with_streams(connection, number, instance)
            else:
                connection.refuse(number, error)

        self._instances.start(wanted, self._cache.tree(wanted.sha256), ready)

    def _require_sandbox(self) -> None:
        self._look_again()
        if self._machine.sandboxed and missing(self._report):
            message, hint = refusal(self._report)
            raise refused(message, hint=hint)

    def _require_node(self) -> None:
        if not self._machine.host.node:
            raise insufficient(
                "there is no Node.js on this machine", hint="install it and start the spawner again"
            )
        if not os.path.exists(NODE_RUNNER):
            raise insufficient("this installation lacks the runner for Node.js")

    def _list(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        after = message.get("after", "")
        if not isinstance(after, str):
            raise bad_request("after: the id of an Instance is wanted")
        later = [each for each in self._instances.known() if each.spec.instance > after]
        return {
            "instances": [each.describe() for each in later[:_PAGE]],
            "more": len(later) > _PAGE,
        }

    def _attach(self, connection: Connection, message: dict[str, Any], _: list[int]) -> None:
        instance = self._instances.get(spec.instance_id(message))
        self._answer_with_streams(connection, message.get("id"), instance)

    def _signal(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        instance = self._instances.get(spec.instance_id(message))
        if instance.child is not None:
            instance.child.signal(spec.signal_number(message))
        return {}

    def _close(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        if message.get("stream") != "stdin":
            raise bad_request("stream: stdin is wanted")
        self._instances.close_stream(spec.instance_id(message), "stdin")
        return {}

    def _remove(self, _: Connection, message: dict[str, Any], __: list[int]) -> Fields:
        self._instances.remove(spec.instance_id(message))
        return {}

    def _shutdown(self, connection: Connection, message: dict[str, Any], _: list[int]) -> None:
        grace = spec.integer(message, "grace_ms", 0, spec.MAX_GRACE_MS) / 1000
        self._begin_stopping(grace)
        if self._stopping is not None:
            self._stopping.append((connection, message.get("id")))

    def _begin_stopping(self, grace: float) -> None:
        if self._stopping is None:
            self._stopping = []
        for instance in self._instances.running():
            instance.reason = "the spawner was shut down"
            if instance.child is not None:
                instance.child.signal(signal.SIGTERM)
        self._loop.call_later(grace, self._kill_all)
        # In a turn of its own, after whoever asked for it is known.
        self._loop.call_later(0, self._end_if_idle)

    def _kill_all(self) -> None:
        for instance in self._instances.running():
            if instance.child is not None:
                instance.child.kill()

    def _end_if_idle(self) -> None:
        if self._stopping is None or self._instances.running():
            return
        for connection, number in self._stopping:
            connection.answer(number, {})
        self._stopping = []
        self._loop.stop()

    def _instance_ended(self, instance: Instance) -> None:
        if instance.started:
            fields = {"instance": instance.spec.instance, "exit": instance.exit}
            for connection in list(self._connections):
                connection.event("exited", fields)
        self._end_if_idle()

    def _answer_with_streams(
        self, connection: Connection, number: object, instance: Instance
    ) -> None:
        """A stream that was closed is a descriptor of /dev/null: the order never changes."""
        empty = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            outer = instance.channels.outer
            connection.answer(
                number,
                {
                    "pid": instance.pid,
                    "start_time": instance.start_time,
                    "path": package_path(self._machine, self._cache.tree(instance.spec.sha256)),
                    "sandboxed": self._machine.sandboxed,
                    "limits": limits_report(instance.spec.limits),
                    "closed": sorted(instance.closed),
                },
                [outer.get(name, empty) for name in STREAMS],
            )
        finally:
            os.close(empty)
