"""The plans of what the spawner starts: Instances, unpackers, and the probe of this machine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from sth_sandbox import credentials
from sth_sandbox.filesystem import DATA, PACKAGE, Tree
from sth_sandbox.host import SOURCES, Host
from sth_sandbox.orders import Executable, Plan
from sth_sandbox.spec import InstanceSpec

NODE_RUNNER = f"{SOURCES}/sth_sandbox/runners/node/runner.cjs"
# Of every program, and of the spawner itself, but for its PATH: a zygote's child has little to set.
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": DATA,
    "TMPDIR": "/tmp",
}
# Neither the environment, nor the user, nor site packages reach the interpreter.
ISOLATED = ("-I", "-S", "-B")
# What the zygote's children can be without becoming another file.
INSTANCE = "instance"
PROBE = "probe"
_RUN_PYTHON = "from sth_sandbox.runners.python import run_instance; run_instance()"


@dataclass(frozen=True, slots=True)
class Machine:
    """`privileged`: the spawner is root and gives each Instance a user of the host; otherwise
    each gets a user namespace. `sandboxed`: False only by --allow-unsandboxed where it must be.
    """

    host: Host
    directory: str
    privileged: bool
    sandboxed: bool = True


def instance_plan(
    machine: Machine,
    spec: InstanceSpec,
    *,
    package: str,
    user: int,
    descriptors: Sequence[int],
) -> Plan:
    """`package`: the unpacked tree, relative to the directory; `user`: of `host_user`."""
    path = package_path(machine, package)
    environment = {
        **_environment(machine),
        "SEQUENCE_PATH": path,
        "INSTANCE_ID": spec.instance,
    }
    run: Executable | str
    if spec.language == "node":
        node = machine.host.node
        run = Executable(node, (node, "--no-warnings", NODE_RUNNER))
    elif spec.isolation == "exec":
        run = _python(machine.host, _RUN_PYTHON)
    else:
        run = INSTANCE
    return _plan(
        machine,
        package=package,
        host_name=f"sth-{spec.instance[:8].lower().strip('-_') or 'instance'}",
        user=user,
        environment=environment,
        descriptors=descriptors,
        run=run,
        loopback=spec.network == "loopback",
    )


def unpack_plan(machine: Machine, *, target: str, descriptors: Sequence[int]) -> Plan:
    """Unpack the archive at descriptor 3 into `target`, which is all that it can write to."""
    return _target_plan(machine, "extract", target, descriptors)


def clear_plan(machine: Machine, *, target: str, descriptors: Sequence[int]) -> Plan:
    """Remove everything that is in `target`."""
    return _target_plan(machine, "clear", target, descriptors)


def _target_plan(machine: Machine, task: str, target: str, descriptors: Sequence[int]) -> Plan:
    return _plan(
        machine,
        package=target,
        host_name=f"sth-{task}",
        user=unpack_user(machine),
        environment={**_environment(machine), "SEQUENCE_PATH": package_path(machine, target)},
        descriptors=descriptors,
        run=_python(machine.host, f"from sth_sandbox.unpack import main; main([{task!r}])"),
        package_writable=True,
    )


def probe_plan(machine: Machine, *, package: str, descriptors: Sequence[int]) -> Plan:
    """Enter the sandbox, all of it, and end."""
    return _plan(
        machine,
        package=package,
        host_name="sth-probe",
        user=unpack_user(machine),
        environment=_environment(machine),
        descriptors=descriptors,
        run=PROBE,
    )


def package_path(machine: Machine, package: str) -> str:
    """Where a program finds its package."""
    return PACKAGE if machine.sandboxed else f"{machine.directory}/{package}"


def unpack_user(machine: Machine) -> int:
    """Whose the unpacked files are, as the host counts users."""
    return credentials.UNPACK_USER if machine.privileged else os.geteuid()


def _plan(
    machine: Machine,
    *,
    package: str,
    host_name: str,
    user: int,
    environment: dict[str, str],
    descriptors: Sequence[int],
    run: Executable | str,
    loopback: bool = False,
    package_writable: bool = False,
) -> Plan:
    inner = user if machine.privileged else credentials.INNER_USER
    tree = Tree(
        host=machine.host,
        package=package,
        host_name=host_name,
        user=inner,
        group=inner,
        package_writable=package_writable,
    )
    return Plan(
        tree=tree if machine.sandboxed else None,
        user=inner,
        group=inner,
        user_namespace=machine.sandboxed and not machine.privileged,
        environment=environment,
        descriptors=descriptors,
        run=run,
        loopback=loopback,
    )


def _environment(machine: Machine) -> dict[str, str]:
    home = DATA if machine.sandboxed else "/tmp"
    return {**ENVIRONMENT, "HOME": home}


def _python(host: Host, code: str) -> Executable:
    """An interpreter that sees the standard library and our sources."""
    prelude = f"import sys; sys.path.insert(0, {SOURCES!r}); "
    return Executable(host.python, (host.python, *ISOLATED, "-c", prelude + code))
