"""Joining a real broker on loopback, and every way in which that fails."""

import asyncio
import contextlib
import dataclasses
import io
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.broker_core import Clock, Core, Machine, running_core

from sth_agent import cli, host, join
from sth_agent.addresses import SERVER_NAME
from sth_agent.credentials import IdentityStore
from sth_agent.join import JoinOptions, JoinResult
from sth_broker.pki import CertificateAuthority, ServerCertificate
from sth_protocol.errors import (
    Conflict,
    JoinTokenSpent,
    PinMismatch,
    SthError,
    Unauthorized,
    Unreachable,
)
from sth_protocol.jointoken import JoinToken, format_token


async def joining(
    token: JoinToken, store: IdentityStore, *, said: list[str] | None = None, **options: object
) -> JoinResult:
    """Join as the command does, in a thread: it blocks."""
    report = said.append if said is not None else (lambda text: None)
    wishes = dataclasses.replace(JoinOptions(), **options)  # type: ignore[arg-type]
    return await asyncio.to_thread(
        join.join, token, store, host.machine(), options=wishes, report=report
    )


@pytest.fixture
def store(tmp_path: Path) -> IdentityStore:
    return IdentityStore(tmp_path / "identity")


@contextlib.asynccontextmanager
async def tls_server(
    context: ssl.SSLContext, answer: bytes
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Something else that speaks TLS: its port, and all that it was sent."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            heard.append(await reader.read(65536))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()
        await server.wait_closed()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def server_context(directory: Path, authority: CertificateAuthority) -> ssl.SSLContext:
    directory.mkdir(exist_ok=True)
    certificate = ServerCertificate(authority, directory, ["127.0.0.1"])
    certificate.ensure(now=time.time())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate_path, certificate.key_path)
    return context


def http_answer(body: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()


async def test_join_gives_an_identity_that_has_proved_itself(
    core: Core, store: IdentityStore
) -> None:
    said: list[str] = []
    result = await joining(await core.join_token(), store, said=said, name="pi-garage")
    assert store.current() == result.identity
    assert (result.identity.name, result.identity.space) == ("pi-garage", "default")
    assert not result.already_joined
    assert "Broker identity matches the token" in said[0]
    assert "certificate of hub pi-garage valid to" in said[1]
    assert core.hubs.find(result.identity.hub) is not None


async def test_join_tries_every_address(core: Core, store: IdentityStore, tmp_path: Path) -> None:
    stranger = CertificateAuthority.open(tmp_path / "stranger", now=time.time())
    context = server_context(tmp_path / "stranger", stranger)
    async with tls_server(context, http_answer(stranger.pem)) as (port, _):
        addresses = [
            "no-such-host.invalid:1",
            f"127.0.0.1:{closed_port()}",
            f"127.0.0.1:{port}",
            f"127.0.0.1:{core.port}",
        ]
        result = await joining(await core.join_token(addresses=addresses), store)
    assert result.identity.hub


async def test_join_again_uses_no_token(core: Core, store: IdentityStore) -> None:
    first = await joining(await core.join_token(), store, name="pi")
    token = await core.join_token()
    second = await joining(token, store)
    assert second.already_joined
    assert second.reachable
    assert second.identity == first.identity
    other = Machine(core)
    assert (await other.enroll(token))[0] == 200


async def test_join_again_while_the_broker_is_away_says_so(
    tmp_path: Path, store: IdentityStore
) -> None:
    async with running_core(tmp_path / "core") as core:
        token = await core.join_token(uses=2)
        await joining(token, store)
    again = await joining(token, store)
    assert again.already_joined
    assert not again.reachable


async def test_join_elsewhere_is_a_conflict_unless_replaced(
    core: Core, store: IdentityStore, tmp_path: Path
) -> None:
    first = await joining(await core.join_token(), store)
    async with running_core(tmp_path / "second") as second:
        with pytest.raises(Conflict) as refused:
            await joining(await second.join_token(), store)
        assert refused.value.exit_code == 5
        assert "--replace" in refused.value.hint
        assert store.current() == first.identity
        result = await joining(await second.join_token(), store, replace=True)
        assert second.hubs.find(result.identity.hub) is not None
    assert store.current() == result.identity


async def test_join_after_revocation_keeps_the_name(core: Core, store: IdentityStore) -> None:
    first = await joining(await core.join_token(), store, name="pi-garage")
    await core.hubs.revoke("default", first.identity.hub, by="test")
    result = await joining(await core.join_token(), store)
    assert not result.already_joined
    assert result.identity.name == "pi-garage"
    assert result.identity.fingerprint != first.identity.fingerprint


async def test_join_with_a_used_token_is_refused(core: Core, store: IdentityStore) -> None:
    token = await core.join_token()
    assert (await Machine(core).enroll(token))[0] == 200
    with pytest.raises(JoinTokenSpent) as refused:
        await joining(token, store)
    assert refused.value.exit_code == 4
    assert store.current() is None


async def test_join_with_an_expired_token_says_since_when(core: Core, store: IdentityStore) -> None:
    token = await core.join_token(ttl=1)
    expired = dataclasses.replace(token, expires=int(time.time()) - 3 * 3600)
    core.clock.offset = 60
    with pytest.raises(JoinTokenSpent, match="expired 3 h ago") as refused:
        await joining(expired, store)
    assert "--space default" in refused.value.hint


async def test_join_with_a_wrong_secret_is_refused(core: Core, store: IdentityStore) -> None:
    token = dataclasses.replace(await core.join_token(), secret=bytes(16))
    with pytest.raises(Unauthorized):
        await joining(token, store)


async def test_join_never_sends_the_secret_to_another_authority(
    core: Core, store: IdentityStore, tmp_path: Path
) -> None:
    stranger = CertificateAuthority.open(tmp_path / "stranger", now=time.time())
    context = server_context(tmp_path / "stranger", stranger)
    async with tls_server(context, http_answer(stranger.pem)) as (port, heard):
        token = await core.join_token(addresses=[f"127.0.0.1:{port}"])
        with pytest.raises(PinMismatch, match="was NOT sent") as refused:
            await joining(token, store)
    assert refused.value.exit_code == 4
    assert "pass-through" in refused.value.hint
    assert len(heard) == 1
    assert heard[0].startswith(b"GET /v1/ca.pem")
    assert token.secret not in heard[0]


async def test_join_names_the_proxy_that_ends_tls(
    core: Core, store: IdentityStore, tmp_path: Path
) -> None:
    """It passes the CA's file on, and shows a certificate of its own."""
    proxy = CertificateAuthority.open(tmp_path / "proxy", now=time.time())
    context = server_context(tmp_path / "proxy", proxy)
    async with tls_server(context, http_answer(core.authority.pem)) as (port, heard):
        token = await core.join_token(addresses=[f"127.0.0.1:{port}"])
        with pytest.raises(PinMismatch, match="issued by") as refused:
            await joining(token, store)
    assert "pass-through" in refused.value.hint
    assert [each[:4] for each in heard if each] == [b"GET "]


async def test_join_with_a_wrong_clock_names_both_times(
    core: Core, store: IdentityStore, tmp_path: Path
) -> None:
    body = core.authority.pem
    head = (
        f"HTTP/1.1 200 OK\r\nDate: Fri, 02 Jan 1970 00:00:00 GMT\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    context = server_context(tmp_path / "elsewhere", core.authority)
    async with tls_server(context, (head + body).encode()) as (port, _):
        token = await core.join_token(addresses=[f"127.0.0.1:{port}"])
        with pytest.raises(Unreachable, match="2 Jan 1970") as refused:
            await joining(token, store)
    assert refused.value.exit_code == 6
    assert "set the time" in refused.value.hint


async def test_join_without_a_broker_tells_each_address_and_its_reason(
    core: Core, store: IdentityStore
) -> None:
    addresses = [f"127.0.0.1:{closed_port()}", "no-such-host.invalid"]
    with pytest.raises(Unreachable) as refused:
        await joining(await core.join_token(addresses=addresses), store)
    assert refused.value.exit_code == 6
    assert "Connection refused" in refused.value.message
    assert "no-such-host.invalid" in refused.value.message
    assert "cannot be resolved" in refused.value.message


async def test_join_at_a_port_that_does_not_speak_tls_is_explained(
    core: Core, store: IdentityStore
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="TLS"):
            await joining(await core.join_token(addresses=[f"127.0.0.1:{port}"]), store)


async def test_scenario_11_lost_reply_is_asked_again_with_the_same_key(
    core: Core, store: IdentityStore
) -> None:
    """The broker burns the token; the connection is cut before its answer arrives."""
    async with cutting_proxy(core, answers_lost=1) as port:
        token = await core.join_token(addresses=[f"127.0.0.1:{port}"])
        result = await joining(token, store, name="pi")
    assert core.hubs.find(result.identity.hub) is not None
    assert len(core.hubs.list("default")) == 1


async def test_scenario_11_agent_that_died_before_the_answer_joins_with_its_key(
    core: Core, store: IdentityStore
) -> None:
    async with cutting_proxy(core, answers_lost=100) as port:
        lost = await core.join_token(addresses=[f"127.0.0.1:{port}"])
        with pytest.raises(Unreachable):
            await joining(lost, store)
    assert store.current() is None
    token = dataclasses.replace(lost, addresses=(f"127.0.0.1:{core.port}",))
    other = Machine(core)
    assert (await other.enroll(token))[0] == 410
    result = await joining(token, store)
    assert store.current() == result.identity
    assert len(core.hubs.list("default")) == 1


@contextlib.asynccontextmanager
async def cutting_proxy(core: Core, *, answers_lost: int) -> AsyncIterator[int]:
    """A line to the broker that breaks, some times, when a Hub is there and its machine does not
    know yet. What it breaks is the answer: the token was burnt before."""
    lost = 0
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", core.port)
        up = asyncio.create_task(copy(reader, upstream_writer))
        with contextlib.suppress(OSError):
            while data := await upstream_reader.read(65536):
                if core.hubs.list("default") and lost < answers_lost:
                    lost += 1
                    break
                writer.write(data)
                await writer.drain()
        up.cancel()
        writer.transport.abort()
        upstream_writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*connections)
    assert lost, "no answer was lost"


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eyJhbGciOi.x.y", "API token"),
        ("sthj1_AAAA", "truncated"),
        ("hello", "does not start with sthj1_"),
        ("", "no join token was given"),
    ],
)
def test_join_refuses_what_is_no_token(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["join", text, "--state", str(tmp_path / "state")]) == 2
    assert words in capsys.readouterr().err


async def test_join_command_prints_the_result_alone_on_stdout(
    core: Core,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = format_token(await core.join_token())
    monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
    command = ["join", "-", "--no-service", "--state", str(tmp_path / "state"), "--name", "pi"]
    assert await asyncio.to_thread(cli.main, command) == 0
    printed = capsys.readouterr()
    assert printed.out == "Joined as pi; the agent is not running.\n"
    assert "✓ Broker identity matches the token" in printed.err
    assert "sth-agent run --state" in printed.err
    token_file = tmp_path / "token"
    token_file.write_text(text)
    again = ["join", "--token-file", str(token_file), "--state", str(tmp_path / "state"), "--json"]
    assert await asyncio.to_thread(cli.main, again) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["name"], values["already_joined"], values["connected"]) == ("pi", True, False)


async def test_join_takes_the_token_from_the_environment(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STH_JOIN_TOKEN", format_token(await core.join_token()))
    assert await asyncio.to_thread(cli.main, ["join", "--state", str(tmp_path / "state")]) == 0


async def test_join_waits_for_a_broker_that_comes_later(tmp_path: Path) -> None:
    async with running_core(tmp_path / "core") as core:
        token = await core.join_token()
        port = core.port
    command = ["join", format_token(token), "--wait", "--state", str(tmp_path / "state")]
    waiting = asyncio.create_task(asyncio.to_thread(cli.main, command))
    async with running_core(tmp_path / "core", port=port, clock=Clock()):
        assert await asyncio.wait_for(waiting, 60) == 0


def test_join_has_one_source_for_its_token(tmp_path: Path) -> None:
    with pytest.raises(SthError, match="once"):
        join.read_token("sthj1_x", tmp_path / "file", "", str)


def test_name_of_every_broker_is_one_that_never_resolves() -> None:
    assert SERVER_NAME.endswith(".invalid")
