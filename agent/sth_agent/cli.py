"""The `sth-agent` command. Results on stdout, everything else on stderr; exit codes of the errors.

0 done  1 failed  2 usage  4 denied  5 conflict  6 unreachable  78 configuration  130 Ctrl-C

Each command imports what it needs: a command that is not the agent must start at once.
"""

import argparse
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sth_agent.config import TOKEN_VARIABLE, StateDirectory, default_state_path
from sth_protocol.errors import BadRequest, SthError, TimedOut, Unreachable

LINK_WAIT_SECONDS = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    os.umask(0o077)
    options = _parser().parse_args(arguments)
    state = StateDirectory((options.state or default_state_path(os.environ)).absolute())
    command: Callable[[argparse.Namespace, StateDirectory], int] = options.command
    try:
        return command(options, state)
    except SthError as error:
        return _fail(options, error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sth-agent", description="Run Instances on this machine for a broker elsewhere."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., int], text: str) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=text, description=text)
        each.set_defaults(command=command, json=False)
        each.add_argument("--state", type=Path, metavar="DIR", help="where the agent keeps its own")
        return each

    joining = add("join", _join, "join this machine to a broker")
    joining.add_argument(
        "token", nargs="?", help=f"the join token; - for stdin; or ${TOKEN_VARIABLE}"
    )
    joining.add_argument("--token-file", type=Path, metavar="FILE")
    joining.add_argument("--name", default="", help="the Hub's name; made of the host name if not")
    joining.add_argument("--replace", action="store_true", help="leave another broker for this one")
    joining.add_argument("--wait", action="store_true", help="try for ever to reach the broker")
    joining.add_argument("--json", action="store_true", help="the result as one JSON object")
    joining.add_argument("--no-service", action="store_true", help="do not start a service")
    running = add("run", _run, "run the agent in the foreground")
    running.add_argument("-v", "--verbose", action="store_true")
    running.add_argument(
        "--allow-unsandboxed",
        action="store_true",
        help="run programs without a sandbox on a machine that can make none",
    )
    status = add("status", _status, "show the agent, its link and its Instances")
    status.add_argument("--json", action="store_true")
    stopping = add("stop", _stop, "stop the Instances, the agent and the spawner")
    stopping.add_argument("--grace", default="10s", help="what Instances get to end (10s)")
    leaving = add("leave", _leave, "stop, and remove this machine's identity")
    leaving.add_argument("--grace", default="10s", help="what Instances get to end (10s)")
    leaving.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _join(options: argparse.Namespace, state: StateDirectory) -> int:
    from sth_agent import clock, host, join
    from sth_agent.backoff import Backoff
    from sth_agent.credentials import IdentityStore
    from sth_protocol.jointoken import parse_token

    text = join.read_token(
        options.token, options.token_file, os.environ.get(TOKEN_VARIABLE, ""), sys.stdin.read
    )
    token = parse_token(text)
    state.create()
    expires = f", expires {clock.moment(token.expires)}" if token.expires else ""
    _say(f"  Space     {token.space} at {', '.join(token.addresses)}")
    _say(f"  Token     {token.public_id}{expires}")
    backoff = Backoff(random.uniform)
    wishes = join.JoinOptions(name=options.name, replace=options.replace)
    while True:
        try:
            result = join.join(
                token, IdentityStore(state.identity), host.machine(), options=wishes, report=_say
            )
            break
        except (Unreachable, TimedOut) as error:
            if not options.wait:
                raise
            delay = backoff.next_delay()
            _say(f"! {error.message}; next try in {delay:.0f} s")
            time.sleep(delay)
    is_connected = _connect_running(state, reload=not result.already_joined)
    _say_joined(options, state, result, is_connected=is_connected)
    return 0


def _connect_running(state: StateDirectory, *, reload: bool) -> bool | None:
    """Whether the agent that runs here is linked, with its new identity; None if none runs."""
    from sth_agent import control_socket

    try:
        if reload:
            control_socket.ask(state.path, "reload")
        deadline = time.monotonic() + (LINK_WAIT_SECONDS if reload else 0.0)
        while True:
            connection = control_socket.ask(state.path, "status")["connection"]
            if connection["state"] == "connected" or time.monotonic() >= deadline:
                return bool(connection["state"] == "connected")
            time.sleep(0.05)
    except control_socket.NotRunning:
        return None


def _say_joined(
    options: argparse.Namespace, state: StateDirectory, result: object, *, is_connected: bool | None
) -> None:
    from sth_agent.join import JoinResult

    assert isinstance(result, JoinResult)
    identity = result.identity
    if options.json:
        values = {
            "hub": identity.hub,
            "name": identity.name,
            "space": identity.space,
            "already_joined": result.already_joined,
            "connected": is_connected is True,
            "state": str(state.path),
        }
        print(json.dumps(values))
        return
    standing = {
        True: "connected",
        False: "not connected yet (sth-agent status says why)",
        None: "the agent is not running",
    }[is_connected]
    if is_connected is None and not result.reachable:
        standing = "the broker cannot be reached now"
    verb = "Already joined" if result.already_joined else "Joined"
    print(f"{verb} as {identity.name}; {standing}.", flush=True)
    if is_connected is None:
        default = default_state_path(os.environ) == state.path
        sudo = "sudo " if "SUDO_UID" in os.environ else ""
        _say("")
        _say(f"Next:  {sudo}sth-agent run" + ("" if default else f" --state {state.path}"))


def _run(options: argparse.Namespace, state: StateDirectory) -> int:
    from sth_agent import agent

    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    agent.run(state, allow_unsandboxed=options.allow_unsandboxed)
    return 0


def _status(options: argparse.Namespace, state: StateDirectory) -> int:
    from sth_agent import control_socket
    from sth_agent.credentials import require_identity

    require_identity(state.identity)
    status = control_socket.ask(state.path, "status")
    if options.json:
        print(json.dumps(status))
        return 0
    from sth_agent import status_view

    status_view.show(status)
    return 0


def _stop(options: argparse.Namespace, state: StateDirectory) -> int:
    from sth_agent import shutdown
    from sth_agent.durations import parse_duration

    if shutdown.stop(state, grace=parse_duration(options.grace)):
        print("Stopped.")
    else:
        print("Nothing was running.")
    return 0


def _leave(options: argparse.Namespace, state: StateDirectory) -> int:
    from sth_agent import shutdown
    from sth_agent.credentials import require_identity
    from sth_agent.durations import parse_duration

    identity = require_identity(state.identity)
    if not options.yes:
        if not sys.stdin.isatty():
            raise BadRequest("leave removes this machine's identity", hint="confirm with --yes")
        _say(f"This ends all Instances here and removes the identity {identity.name}. Go on? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    shutdown.leave(state, grace=parse_duration(options.grace))
    print(f"{identity.name} has left Space {identity.space}.", flush=True)
    _say(f"  The broker still lists it; `sth hub revoke {identity.name}` there removes it.")
    return 0


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("sth-edge")
    except metadata.PackageNotFoundError:
        return "unknown"


def _say(text: str) -> None:
    encoding = sys.stderr.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def _fail(options: argparse.Namespace, error: SthError) -> int:
    if options.json:
        print(json.dumps({"error": error.to_wire()}))
    _say(f"sth-agent: {error.message}")
    if error.hint:
        _say(f"  {error.hint}")
    return error.exit_code
