"""The command `sth-broker`: what to say to whoever starts it, and when to end."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sth_broker import profile
from sth_broker.config import (
    DEFAULT_AGENTS_PORT,
    DEFAULT_API_PORT,
    Config,
    default_data,
    parse_address,
)
from sth_broker.version import version
from sth_protocol.allocator import keep_freed_memory
from sth_protocol.descriptors import raise_descriptor_limit
from sth_protocol.errors import Misconfigured, SthError
from sth_protocol.ids import DEFAULT_SPACE, LOCAL_HUB

if TYPE_CHECKING:
    from sth_broker.app import Broker
    from sth_broker.local_hub import LocalHub

logger = logging.getLogger(__name__)

_EXTRA = ("aiohttp", "uvloop", "jwt")
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    asked = _parser().parse_args(arguments)
    _log(asked.verbose)
    try:
        return _up(_config(asked))
    except SthError as error:
        print(f"sth-broker: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        print(
            f"sth-broker: {error.name} is not installed; install the extra sth-edge[broker]",
            file=sys.stderr,
        )
        return Misconfigured.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sth-broker",
        description="The broker of sth-edge: programs come in here and run on joined machines.",
        epilog="Exit codes: 0 ended as asked, 1 failure, 2 usage, 5 already running, "
        "78 cannot run with this configuration.",
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run the broker; nothing needs to be configured")
    up.add_argument("--data", metavar="DIR", help="where everything is kept")
    up.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=f"127.0.0.1:{DEFAULT_API_PORT}",
        help="the API (default: %(default)s); port 0: any free one",
    )
    up.add_argument(
        "--agents",
        metavar="HOST:PORT",
        default=f"0.0.0.0:{DEFAULT_AGENTS_PORT}",
        help="the port that agents dial (default: %(default)s)",
    )
    up.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="where agents find this broker; may be given again "
        "(default: this machine's name and outbound addresses)",
    )
    up.add_argument(
        "--no-local-hub", action="store_true", help="run no Hub on this machine beside the broker"
    )
    up.add_argument(
        "--stop-all", action="store_true", help="at the end, stop the built-in Hub as Ctrl-C does"
    )
    up.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv still more")
    return parser


def _config(asked: argparse.Namespace) -> Config:
    data = Path(asked.data) if asked.data else default_data(os.environ, root=os.geteuid() == 0)
    for address in asked.advertise:
        parse_address(address, default_port=DEFAULT_AGENTS_PORT)
    return Config(
        data=data.absolute(),
        listen=parse_address(asked.listen, default_port=DEFAULT_API_PORT),
        agents=parse_address(asked.agents, default_port=DEFAULT_AGENTS_PORT),
        advertise=tuple(asked.advertise),
        local_hub=not asked.no_local_hub,
        stop_all=asked.stop_all,
    )


def _log(verbosity: int) -> None:
    # A terminal shows the lines below; a journal is read when something went wrong.
    quiet = sys.stderr.isatty() and verbosity == 0
    level = logging.DEBUG if verbosity > 1 else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _up(config: Config) -> int:
    import uvloop

    keep_freed_memory()
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(config))


async def _run(config: Config) -> int:
    from sth_broker.app import running

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(received: signal.Signals) -> None:
        # A second Ctrl-C ends it at once.
        loop.remove_signal_handler(signal.SIGINT)
        if not stop.done():
            stop.set_result(received)

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, on_signal, each)
    async with running(config) as broker:
        _say_ready(broker)
        if not config.listen.is_loopback:
            _say(
                f"! The API on {config.listen.host} has no TLS of its own: whoever sees its\n"
                "  traffic sees tokens. Put a TLS proxy in front, or use loopback and SSH"
            )
        received = await _with_local_hub(broker, config, stop)
    return INTERRUPTED if received == signal.SIGINT else 0


async def _with_local_hub(
    broker: "Broker", config: Config, stop: "asyncio.Future[signal.Signals]"
) -> signal.Signals:
    """Wait for the signal to stop, with the built-in Hub beside if there is to be one."""
    from sth_broker.local_hub import LocalHub

    if not config.local_hub:
        return await stop
    hub = LocalHub(
        directory=broker.directory.hub,
        log=broker.directory.hub_log,
        make_token=broker.make_join_token,
        is_online=broker.is_local_hub_online,
    )
    starting = asyncio.create_task(_start(hub))
    received = await stop
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    if config.stop_all or (received == signal.SIGINT and sys.stdin.isatty()):
        _say("  Stopping the built-in Hub and its Instances")
        await hub.stop()
    else:
        await hub.leave_running()
        logger.info("the built-in Hub and its Instances run on")
    return received


async def _start(hub: "LocalHub") -> None:
    try:
        await hub.start()
    except SthError as error:
        # The broker is of use without it.
        _say(f"! {error.message}\n  {error.hint}")
    else:
        _say(f'✓ Built-in Hub "{LOCAL_HUB}" runs; it says in {hub.log} what it does')


def _say_ready(broker: "Broker") -> None:
    _say(f"✓ Data in {broker.directory.path}")
    try:
        path = profile.config_path(os.environ)
        before = profile.write_profile(
            path, url=broker.url, space=DEFAULT_SPACE, token_file=broker.directory.admin_token
        )
        _say(f'✓ Profile "{profile.PROFILE}" written to {path}, you are logged in')
        if before:
            _say(f"! It was that of another broker, with the token {before}")
    except (OSError, ValueError) as error:
        _say(f"! The profile of the command line cannot be written: {error}")
    _say(f"  API {broker.url}   agents {broker.agents}")
    _say("  Add a machine:  sth token create join")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
