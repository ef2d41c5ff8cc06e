"""What a new process of the zygote does: its sandbox, step by step, then what it is there for.

It is process 1 of its pid namespace. It reports over a pipe that its sandbox is complete or which
step failed, and only then runs what it was started for, which never returns.
"""

import fcntl
import json
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from sth_sandbox.actions import SetupFailed, perform
from sth_sandbox.orders import Executable, Order

Programs = Mapping[str, Callable[[], object]]

_READY = b"ready\n"
_EXIT_SETUP_FAILED = 20
# Descriptors are first moved above this number, so that placing one never closes another.
_MOVED = 64
_MAX_DESCRIPTOR = (1 << 31) - 1


def check_report(data: bytes) -> None:
    """SetupFailed unless these bytes, all that a process reported, say that it runs."""
    if data == _READY:
        return
    try:
        failure = json.loads(data.removeprefix(_READY))
        name, reason = str(failure["step"]), str(failure["reason"])
    except (ValueError, KeyError, TypeError):
        name, reason = "set-up", "the process ended while its sandbox was made"
    raise SetupFailed(name, reason)


def become(order: bytes, descriptors: Sequence[int], programs: Programs) -> NoReturn:
    """Carry out an encoded Order, for good: no exception may unwind into the zygote's own code.

    `descriptors`: the program's, and then the one for the report.
    """
    report = descriptors[-1]
    try:
        report = _arrange_descriptors(descriptors)
        run, environment = _set_up(order)
        os.write(report, _READY)
        if isinstance(run, Executable):
            _execute(run, environment)
        else:
            os.close(report)
            report = -1
            _set_environment(environment)
            programs[run]()
    except SetupFailed as failure:
        _say(report, failure.step, failure.reason)
    except BaseException as error:
        if report < 0:
            os.write(2, traceback.format_exc().encode(errors="replace"))
        else:
            _say(report, "set-up", f"{type(error).__name__}: {error}")
    finally:
        os._exit(_EXIT_SETUP_FAILED)


def _set_up(order: bytes) -> tuple[Executable | str, Mapping[str, str]]:
    """Carry out all steps; what to run in the end, and its environment. The steps are forgotten:
    the program gets the memory that they took."""
    wanted = Order.decode(order)
    perform(wanted.steps)
    _install_filter(wanted)
    return wanted.run, wanted.environment


def _arrange_descriptors(descriptors: Sequence[int]) -> int:
    """Put them at 0, 1, 2 ..., the report last, and close the rest; the report's number."""
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _MOVED) for each in descriptors]
    report = len(descriptors) - 1
    for number, descriptor in enumerate(moved):
        os.dup2(descriptor, number, inheritable=number < report)
    os.closerange(report + 1, _MAX_DESCRIPTOR)
    return report


def _install_filter(order: Order) -> None:
    try:
        perform(order.last_steps)
    except SetupFailed:
        # Without a sandbox, by the operator's choice, the filter is only better than nothing.
        if order.sandboxed:
            raise


def _set_environment(environment: Mapping[str, str]) -> None:
    """The zygote's own has nothing else in it and, mostly, the same values already."""
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _execute(program: Executable, environment: Mapping[str, str]) -> None:
    # Python ignores it, and what is ignored stays ignored in the next program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execve(program.path, list(program.arguments), dict(environment))
    except OSError as error:
        raise SetupFailed("exec", str(error)) from error


def _say(report: int, name: str, reason: str) -> None:
    try:
        os.write(report, json.dumps({"step": name, "reason": reason[:2000]}).encode())
    except OSError:
        pass
