"""`python -m sth_sandbox.spawner --directory DIR`: starts the parent of every Instance.

The spawner holds no secret and never runs a user's code itself. Instances share its memory, so it
is started as an isolated interpreter of its own with an environment that is next to empty; this
module only gets it there. Exit codes: 0 it ended as asked (with --daemon: it listens), 75 another
spawner holds the directory, 78 it cannot run.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from sth_sandbox.host import SOURCES, real_python
from sth_sandbox.plans import ENVIRONMENT, ISOLATED
from sth_sandbox.service import EXIT_MISCONFIGURED, LISTENING, Options

_RUN = (
    f"import sys; sys.path.insert(0, {SOURCES!r}); "
    "from sth_sandbox.service import run; run(sys.argv[1])"
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Become the spawner, or with --daemon start it and return when it listens."""
    parser = argparse.ArgumentParser(prog="python -m sth_sandbox.spawner", description=__doc__)
    parser.add_argument("--directory", required=True, help="its state, and its socket")
    parser.add_argument("--daemon", action="store_true", help="return once it listens")
    parser.add_argument("--agent-uid", type=int, default=-1, help="another user who may command it")
    parser.add_argument("--node", default="", help="the Node.js binary, else the first on PATH")
    parser.add_argument(
        "--allow-unsandboxed",
        action="store_true",
        help="run programs without a sandbox on a machine that can make none",
    )
    given = parser.parse_args(arguments)
    options = Options(
        directory=os.path.abspath(given.directory),
        agent_user=given.agent_uid,
        node=given.node,
        allow_unsandboxed=given.allow_unsandboxed,
    )
    if given.daemon:
        sys.exit(_start_daemon(options))
    _become_spawner(options)


def _start_daemon(options: Options) -> int:
    """Start it in a session of its own; 0 once it listens, else the exit code it ended with."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        # Nothing of the caller's stays open in a process that outlives it.
        os.dup2(writer, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        _become_spawner(dataclasses.replace(options, ready=3))
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    if said == LISTENING:
        return 0
    sys.stderr.write(said.decode(errors="replace") or "the spawner ended before it listened\n")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or EXIT_MISCONFIGURED


def _become_spawner(options: Options) -> NoReturn:
    environment = {**ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath)}
    python = real_python()
    fields = json.dumps(dataclasses.asdict(options))
    os.execve(python, [python, *ISOLATED, "-c", _RUN, fields], environment)


if __name__ == "__main__":
    main()
