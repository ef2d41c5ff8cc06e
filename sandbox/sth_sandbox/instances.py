"""The Instances that the spawner holds: from `start` until an agent says `remove`."""

import os
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sth_sandbox import credentials
from sth_sandbox.actions import SetupFailed
from sth_sandbox.channels import Channels, open_channels
from sth_sandbox.children import Child
from sth_sandbox.errors import SandboxError, conflict, insufficient, not_found, refused
from sth_sandbox.loop import Loop
from sth_sandbox.plans import Machine, instance_plan
from sth_sandbox.spec import InstanceSpec
from sth_sandbox.zygote import Zygote

# Seven outer ends, a pidfd, and some that live only while one starts.
_DESCRIPTORS_EACH = 10
_DESCRIPTORS_RESERVED = 128

Exit = dict[str, object]


@dataclass(slots=True)
class Instance:
    """`user`: of the host, its own while it is known. `exit`: None while it runs."""

    spec: InstanceSpec
    user: int
    channels: Channels
    started: bool = False
    start_time: int = 0
    exit: Exit | None = None
    reason: str = ""
    closed: set[str] = field(default_factory=set)
    child: Child | None = None

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0

    def describe(self) -> dict[str, object]:
        """As `list` answers it."""
        return {
            "instance": self.spec.instance,
            "pid": self.pid,
            "start_time": self.start_time,
            "running": self.exit is None,
            "exit": self.exit,
        }


class Instances:
    """Starts and keeps them. `on_exit` is called for each that has ended, started or not."""

    def __init__(
        self,
        loop: Loop,
        zygote: Zygote,
        machine: Machine,
        *,
        on_exit: Callable[[Instance], None],
    ) -> None:
        self._loop = loop
        self._zygote = zygote
        self._machine = machine
        self._on_exit = on_exit
        self._instances: dict[str, Instance] = {}
        self._next_user = 0
        zygote.forget = self._instances.clear

    def start(
        self,
        spec: InstanceSpec,
        package: str,
        on_ready: Callable[[Instance, SandboxError | None], None],
    ) -> None:
        """Begin to start one; `on_ready` says later how it went. `package`: as `instance_plan`."""
        if spec.instance in self._instances:
            raise conflict(f"Instance {spec.instance} is there already")
        self._check_room()
        user = self._free_user()
        try:
            channels = open_channels(user, user)
        except OSError as error:
            raise insufficient(f"no descriptors for another Instance: {error}") from error
        instance = Instance(spec=spec, user=user, channels=channels)
        plan = instance_plan(
            self._machine,
            spec,
            package=package,
            user=user,
            descriptors=channels.inner_descriptors(),
        )
        self._instances[spec.instance] = instance
        try:
            instance.child = Child(
                self._loop,
                self._zygote,
                plan,
                on_ready=lambda failure: self._ready(instance, failure, on_ready),
                on_exit=lambda status: self._ended(instance, status),
            )
            instance.start_time = process_start_time(instance.pid)
        except (SetupFailed, OSError) as error:
            self._drop(instance)
            raise refused(f"the sandbox could not be made: {error}") from error
        finally:
            channels.close_inner()

    def get(self, name: str) -> Instance:
        """NOT_FOUND unless it is known and its start has succeeded."""
        instance = self._instances.get(name)
        if instance is None or not instance.started:
            raise not_found(f"no Instance {name} here")
        return instance

    def known(self) -> list[Instance]:
        """All that have started, by name."""
        started = [each for each in self._instances.values() if each.started]
        return sorted(started, key=lambda each: each.spec.instance)

    def uses(self, sha256: str) -> bool:
        """Whether a running Instance has this package as its own."""
        return any(
            each.spec.sha256 == sha256 and each.exit is None for each in self._instances.values()
        )

    def running(self) -> list[Instance]:
        """All with a process, those that are just being started too."""
        return [each for each in self._instances.values() if each.exit is None]

    def remove(self, name: str) -> None:
        instance = self.get(name)
        if instance.exit is None:
            raise conflict(f"Instance {name} still runs")
        self._drop(instance)

    def close_stream(self, name: str, stream: str) -> None:
        """Close the spawner's own copy of an outer end; again is harmless."""
        instance = self.get(name)
        descriptor = instance.channels.outer.pop(stream, None)
        if descriptor is not None:
            os.close(descriptor)
            instance.closed.add(stream)

    def _ready(
        self,
        instance: Instance,
        failure: SetupFailed | None,
        on_ready: Callable[[Instance, SandboxError | None], None],
    ) -> None:
        if failure is None:
            instance.started = True
            on_ready(instance, None)
        else:
            error = refused(
                f"the sandbox could not be made: {failure}",
                hint="see spawner.log, and what this machine enforces",
            )
            on_ready(instance, error)

    def _ended(self, instance: Instance, status: int) -> None:
        instance.exit = describe_exit(status, instance.reason)
        if not instance.started:
            self._drop(instance)
        self._on_exit(instance)

    def _drop(self, instance: Instance) -> None:
        del self._instances[instance.spec.instance]
        instance.channels.close()

    def _check_room(self) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        room = min(credentials.USERS, (limit - _DESCRIPTORS_RESERVED) // _DESCRIPTORS_EACH)
        if len(self._instances) >= room:
            raise insufficient(
                f"this spawner can hold {room} Instances",
                hint="remove ended ones, or raise its limit of open files",
            )

    def _free_user(self) -> int:
        """A host user that no known Instance has. An ordinary user's spawner has only its own."""
        if not (self._machine.privileged and self._machine.sandboxed):
            return os.geteuid()
        taken = {each.user for each in self._instances.values()}
        while credentials.FIRST_USER + self._next_user in taken:
            self._next_user = (self._next_user + 1) % credentials.USERS
        user = credentials.FIRST_USER + self._next_user
        self._next_user = (self._next_user + 1) % credentials.USERS
        return user


def describe_exit(status: int, reason: str = "") -> Exit:
    """What os.waitpid said, as the wire has it."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return {"code": None, "signal": -code, "reason": reason or f"killed by {name}"}
    return {"code": code, "signal": None, "reason": reason or f"ended with code {code}"}


def process_start_time(pid: int) -> int:
    """Clock ticks from boot to the start of this process: with its number, its identity."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name, in parentheses, may hold anything.
        return int(file.read().rpartition(b")")[2].split()[19])


def limits_report(limits: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What became of each limit that was asked for."""
    reason = "limits by control groups are not used by this version"
    return {name: {"state": "absent", "reason": reason, "fix": ""} for name in sorted(limits)}
