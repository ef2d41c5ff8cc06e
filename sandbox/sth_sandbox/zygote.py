"""The zygote: a process that does nothing but start others, so that its memory stays as it was.

A child shares its parent's memory until one of them writes to it, and the spawner writes to
hundreds of pages as it serves requests: started by itself, each Instance would keep a copy of them
(measured: a MiB). So it forks the zygote once, which reads an order, clones, and answers. Its
children are the spawner's by CLONE_PARENT: that one waits for them, and they die with it.
"""

import array
import ctypes
import errno
import gc
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable
from typing import NoReturn

from sth_sandbox import credentials, packets, syscalls
from sth_sandbox.actions import Action, SetupFailed, perform, steps, write_file
from sth_sandbox.newborn import Programs, become
from sth_sandbox.orders import Order, Plan, namespace_flags, order_for

logger = logging.getLogger(__name__)

# Flags of clone, then the Order.
_HEAD = struct.Struct("=Q")
# Process id, or -1 and why not.
_ANSWER = struct.Struct("=ii")
_MAX_ORDER = 128 * 1024
_MAX_DESCRIPTOR = (1 << 31) - 1
_REHEARSALS = 10
# As ps shows it.
_name = ctypes.create_string_buffer(b"sth-zygote")


class Zygote:
    """The spawner's handle of it. `programs`: what a child can be without becoming another file.

    `forget` is called in a zygote that had to be forked anew: what a working spawner knows is none
    of its children's business.
    """

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self.forget: Callable[[], None] = lambda: None
        self._pid, self._socket = self._fork()

    def launch(self, plan: Plan) -> tuple[int, int]:
        """Start a process: (process id, descriptor of its report).

        The report ends (EOF) when the process runs or has failed; `newborn.check_report` makes
        sense of it. SetupFailed: the namespaces themselves were refused.
        """
        order = _HEAD.pack(namespace_flags(plan)) + order_for(plan).encode()
        report, child_report = os.pipe2(os.O_CLOEXEC)
        try:
            pid = self._ask(order, [*plan.descriptors, child_report])
        except BaseException:
            os.close(report)
            raise
        finally:
            os.close(child_report)
        return pid, report

    def close(self) -> None:
        """End it; what it has started runs on."""
        self._socket.close()
        os.waitpid(self._pid, 0)

    def _ask(self, order: bytes, descriptors: list[int]) -> int:
        try:
            packets.send_encoded(self._socket, order, descriptors)
        except ConnectionError:
            logger.error("the zygote has ended: another one is made")
            self.close()
            self._pid, self._socket = self._fork(self.forget)
            packets.send_encoded(self._socket, order, descriptors)
        answer = self._socket.recv(_ANSWER.size)
        if not answer:
            # Not asked again: it may have been carried out.
            raise SetupFailed("namespaces", "the zygote has ended")
        pid, number = _ANSWER.unpack(answer)
        if pid < 0:
            raise SetupFailed("namespaces", f"clone: {os.strerror(number)}")
        return int(pid)

    def _fork(self, forget: Callable[[], None] | None = None) -> tuple[int, socket.socket]:
        # Orders hold a pointer to it.
        if syscalls.supported():
            credentials.filter_actions()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_ORDER)
        # What exists by now is never looked at by the collector again, here or in a child: its
        # pages stay shared.
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            _live(its, self._programs, forget)
        its.close()
        return pid, ours


def _live(
    connection: socket.socket, programs: Programs, forget: Callable[[], None] | None
) -> NoReturn:
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        syscalls.prctl(syscalls.PR_SET_NAME, ctypes.addressof(_name), 0, 0, 0)
        # A terminal sends its signals to the spawner as well, which decides.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # The spawner's log and lock are not this process's.
        logging.root.handlers.clear()
        descriptor = os.dup2(connection.detach(), 3, inheritable=False)
        os.closerange(descriptor + 1, _MAX_DESCRIPTOR)
        if forget is not None:
            forget()
        _rehearse()
        _serve(socket.socket(fileno=descriptor), programs)
    finally:
        os._exit(1)


def _rehearse() -> None:
    """The interpreter rewrites code that is executed for the first times: here, not in a child."""
    name = (syscalls.PR_SET_NAME, ctypes.addressof(_name), 0, 0, 0)
    harmless = (
        Action("rehearsal", os.chdir, (".",)),
        Action("rehearsal", write_file, ("/dev/null", b"")),
        Action("rehearsal", syscalls.prctl, name),
    )
    order = Order(True, steps(harmless), [], {}, "").encode()
    for _ in range(_REHEARSALS):
        perform(Order.decode(order).steps)


def _serve(connection: socket.socket, programs: Programs) -> None:
    """Until the spawner is gone."""
    space = socket.CMSG_SPACE(packets.MAX_DESCRIPTORS * array.array("i").itemsize)
    while True:
        order, ancillary, _, _ = connection.recvmsg(_MAX_ORDER, space, socket.MSG_CMSG_CLOEXEC)
        if not order:
            os._exit(0)
        descriptors = array.array("i", ancillary[0][2])
        number = 0
        try:
            pid = syscalls.clone_process(_HEAD.unpack_from(order)[0] | syscalls.CLONE_PARENT)
        except OSError as error:
            pid, number = -1, error.errno or errno.EIO
        if pid == 0:
            become(order[_HEAD.size :], descriptors, programs)
        connection.send(_ANSWER.pack(pid, number))
        packets.close_all(descriptors)
