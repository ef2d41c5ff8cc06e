"""The running agent's own socket: `status`, `stop` and `reload` for the commands on this machine.

One JSON object on a line each way, over a unix socket that only its owner can open.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sth_agent import local_socket
from sth_protocol.errors import BadRequest, Internal, SthError, Unreachable, from_wire

logger = logging.getLogger(__name__)

NAME = "agent.sock"
MAX_LINE = 1024 * 1024
ANSWER_TIMEOUT = 30.0

Json = dict[str, Any]
Operation = Callable[[Json], Awaitable[Json]]


class ControlServer:
    """Answers on `directory`/agent.sock."""

    def __init__(self, directory: Path, operations: dict[str, Operation]) -> None:
        self._path = directory / NAME
        self._operations = operations
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        listener = local_socket.listen(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line:
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Json:
        try:
            request = json.loads(line)
            name = request.get("op") if isinstance(request, dict) else None
            operation = self._operations.get(str(name))
            if operation is None:
                raise BadRequest(f"there is no operation '{str(name)[:40]}'")
            return {"result": await operation(request)}
        except ValueError:
            return {"error": BadRequest("not a JSON object").to_wire()}
        except SthError as error:
            return {"error": error.to_wire()}
        except Exception:
            logger.exception("an operation of the control socket failed")
            return {"error": Internal("the agent failed").to_wire()}


class NotRunning(Unreachable):
    """No agent runs with this state directory."""


def ask(directory: Path, operation: str, *, timeout: float = ANSWER_TIMEOUT, **fields: Any) -> Json:
    """Ask the agent of this directory, from another process. NotRunning if there is none."""
    try:
        stream = local_socket.connect(directory / NAME, timeout=timeout)
    except OSError:
        raise NotRunning(
            "no agent is running on this machine with that state directory",
            hint="start it: sth-agent run",
        ) from None
    with stream:
        line = _exchange(stream, json.dumps({"op": operation, **fields}).encode() + b"\n")
    try:
        answer = json.loads(line)
    except ValueError:
        raise Unreachable("the agent ended before it answered") from None
    if "error" in answer:
        raise from_wire(answer["error"])
    result: Json = answer["result"]
    return result


def _exchange(stream: socket.socket, request: bytes) -> bytes:
    try:
        stream.sendall(request)
        with stream.makefile("rb") as answers:
            return answers.readline()
    except TimeoutError:
        raise Unreachable("the agent does not answer", hint="its log tells more") from None
    except OSError as error:
        raise Unreachable(f"the agent ended the conversation: {error}") from None
