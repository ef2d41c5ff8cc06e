"""What this machine is: told to the broker at enrolment and in every HELLO."""

import os
import platform
import shutil
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from sth_agent.enrolment import Machine
from sth_protocol.model import HubInfo

NODE_TIMEOUT = 10.0


def agent_version() -> str:
    try:
        return metadata.version("sth-edge")
    except metadata.PackageNotFoundError:
        return "0"


def machine() -> Machine:
    """Facts that need no sandbox and no broker."""
    name, version = platform.libc_ver()
    return Machine(
        host_name=socket.gethostname(),
        arch=platform.machine(),
        os=_os_name(),
        python=platform.python_version(),
        libc=f"{name} {version}".strip(),
        agent_version=agent_version(),
    )


def hub_info(name: str, sandbox: dict[str, Any]) -> HubInfo:
    """The HELLO of this machine. `sandbox`: the spawner's report of what it enforces."""
    facts = machine()
    return HubInfo(
        name=name,
        agent_version=facts.agent_version,
        arch=facts.arch,
        os=facts.os,
        python=facts.python,
        node=_node_version(),
        libc=facts.libc,
        host_name=facts.host_name,
        sandbox=sandbox,
    )


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _node_version() -> str:
    """The version of Node.js, "" where there is none."""
    node = shutil.which("node")
    if node is None:
        return ""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(Path("/"))}
    try:
        done = subprocess.run(
            [node, "--version"],
            capture_output=True,
            timeout=NODE_TIMEOUT,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip().removeprefix("v")
