"""Finds out what this machine enforces, by sending a child through the whole set-up once."""

import os

from sth_sandbox import syscalls
from sth_sandbox.actions import SetupFailed
from sth_sandbox.children import Child
from sth_sandbox.loop import Loop
from sth_sandbox.plans import Machine, probe_plan
from sth_sandbox.report import Report, look_for_facts, make_report
from sth_sandbox.zygote import Zygote


def probe(machine: Machine, zygote: Zygote) -> Report:
    """The report on this machine. Takes some milliseconds, in which nothing else is served."""
    return make_report(_try_sandbox(machine, zygote), look_for_facts())


def _try_sandbox(machine: Machine, zygote: Zygote) -> SetupFailed | None:
    if not syscalls.supported():
        return SetupFailed("seccomp", f"{syscalls.machine()} is not known")
    loop = Loop()
    failures: list[SetupFailed | None] = []
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        plan = probe_plan(machine, package=".", descriptors=(null,) * 3)
        Child(loop, zygote, plan, on_ready=failures.append, on_exit=lambda _status: loop.stop())
        loop.run()
    except SetupFailed as failure:
        return failure
    except OSError as error:
        return SetupFailed("namespaces", str(error))
    finally:
        os.close(null)
        loop.close()
    return failures[0]
