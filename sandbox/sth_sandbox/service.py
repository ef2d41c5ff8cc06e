"""The running spawner: its directory and lock, its socket, and everything wired together."""

import dataclasses
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import stat
import sys
from dataclasses import dataclass
from typing import NoReturn

from sth_sandbox import filesystem, packets
from sth_sandbox.bounded_log import BoundedLog
from sth_sandbox.cache import Cache
from sth_sandbox.errors import SandboxError, conflict, misconfigured
from sth_sandbox.host import look_at_host
from sth_sandbox.loop import Loop
from sth_sandbox.plans import INSTANCE, PROBE, Machine
from sth_sandbox.probe import probe
from sth_sandbox.report import missing, refusal
from sth_sandbox.runners.python import run_instance, warm_up
from sth_sandbox.server import Server
from sth_sandbox.zygote import Zygote

logger = logging.getLogger(__name__)

EXIT_HELD = 75
EXIT_MISCONFIGURED = 78
LISTENING = b"listening\n"

_LOCK = "spawner.lock"
_LOG = "spawner.log"
_STOP_SECONDS = 10.0
_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Options:
    """`agent_user`: who may connect beside the spawner's own user, -1: nobody.

    `ready`: the descriptor on which to say that it listens, or why it does not; 2 is stderr.
    """

    directory: str
    agent_user: int = -1
    node: str = ""
    allow_unsandboxed: bool = False
    ready: int = 2


def run(text: str) -> NoReturn:
    """Be the spawner until it is stopped. `text`: the Options as JSON."""
    options = Options(**json.loads(text))
    try:
        _serve(options)
        code = 0
    except SandboxError as error:
        os.write(options.ready, f"{error.message}; {error.hint}\n".encode())
        code = EXIT_HELD if error.code == "CONFLICT" else EXIT_MISCONFIGURED
    except OSError as error:
        os.write(options.ready, f"the spawner cannot start: {error}\n".encode())
        code = EXIT_MISCONFIGURED
    sys.exit(code)


def _serve(options: Options) -> None:
    _enter_directory(options)
    lock = _take_lock(options)
    _start_log()
    _raise_descriptor_limit()
    zygote = _make_zygote()
    loop = Loop()
    server = _build(loop, zygote, options)
    listener = _listen(options)
    server.listen(listener)
    loop.on_signals(
        {
            signal.SIGTERM: lambda: server.stop(grace=_STOP_SECONDS),
            signal.SIGINT: lambda: server.stop(grace=_STOP_SECONDS),
            # A terminal that is closed is no reason to stop programs.
            signal.SIGHUP: lambda: None,
        }
    )
    logger.info("process %d listens in %s", os.getpid(), options.directory)
    if options.ready != 2:
        os.write(options.ready, LISTENING)
        os.close(options.ready)
    loop.run()
    os.unlink(packets.SOCKET_NAME)
    listener.close()
    server.close()
    loop.close()
    zygote.close()
    logger.info("ended")
    os.close(lock)


def _make_zygote() -> Zygote:
    """After the directory is entered and before anything is known."""
    warm_up()
    return Zygote({INSTANCE: run_instance, PROBE: lambda: os._exit(0)})


def _build(loop: Loop, zygote: Zygote, options: Options) -> Server:
    machine = Machine(
        host=look_at_host(node=options.node),
        directory=options.directory,
        privileged=os.geteuid() == 0,
    )
    report = probe(machine, zygote)
    if missing(report):
        logger.error("%s; %s", *refusal(report))
        if options.allow_unsandboxed:
            logger.critical("PROGRAMS RUN WITHOUT A SANDBOX, as --allow-unsandboxed demands")
            machine = dataclasses.replace(machine, sandboxed=False)
    return Server(
        loop,
        zygote,
        machine,
        Cache(loop, zygote, machine),
        report=report,
        probe=lambda: probe(machine, zygote),
        agent_user=options.agent_user,
    )


def _enter_directory(options: Options) -> None:
    """Make it, check whose it is, and work in it from now on: later paths are relative."""
    os.umask(0o077)
    # An agent of another user only passes through, to the socket.
    mode = 0o700 if options.agent_user < 0 else 0o711
    os.makedirs(options.directory, mode=mode, exist_ok=True)
    descriptor = os.open(options.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        details = os.fstat(descriptor)
        if details.st_uid != os.geteuid():
            raise misconfigured(
                f"{options.directory} belongs to user {details.st_uid}, not to this one",
                hint="give the spawner a directory of its own",
            )
        if stat.S_IMODE(details.st_mode) != mode:
            os.fchmod(descriptor, mode)
        os.fchdir(descriptor)
    finally:
        os.close(descriptor)
    os.makedirs(filesystem.MOUNT_POINT, mode=0o755, exist_ok=True)


def _take_lock(options: Options) -> int:
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise conflict(
            f"process {holder or '?'} is the spawner of {options.directory} already"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _start_log() -> None:
    handler = BoundedLog(_LOG)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def _raise_descriptor_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _listen(options: Options) -> socket.socket:
    """The lock is held: a socket that is there already is a dead spawner's."""
    try:
        os.unlink(packets.SOCKET_NAME)
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(packets.SOCKET_NAME)
    if options.agent_user >= 0 and os.geteuid() == 0:
        os.chown(packets.SOCKET_NAME, options.agent_user, -1)
    listener.listen(_BACKLOG)
    return listener
