"""The agent's connection to a real broker's core: links that break, identities that change."""

import asyncio
import os
import shutil
import ssl
import time
from pathlib import Path

import pytest
from tests.support.broker_core import Clock, Core, running_core
from tests.support.joined_agent import connecting, join_core
from tests.support.line import line_to
from tests.support.waiting import until

from sth_agent.addresses import Address
from sth_agent.channels import ChannelUser
from sth_agent.credentials import trusting_context
from sth_agent.link import Link
from sth_agent.session import Session
from sth_broker.pki import CertificateAuthority
from sth_protocol.errors import NotFound, SessionLost, SthError, Unreachable
from sth_protocol.handshake import Hello
from sth_protocol.model import HubInfo

DAY = 24 * 3600.0


class Collector(ChannelUser):
    """Consumes what comes, and remembers it."""

    def __init__(self) -> None:
        self.data = b""
        self.is_finished = False
        self.error: SthError | None = None

    def finished(self) -> None:
        self.is_finished = True

    def reset(self, error: SthError, consumed: int | None) -> None:
        self.error = error


class Nobody:
    """Asked for nothing here."""

    def opened(self, channel: object) -> None:
        raise AssertionError

    async def request(self, kind: str, fields: object) -> dict[str, object]:
        raise AssertionError

    def noticed(self, kind: str, fields: object) -> None:
        raise AssertionError


async def test_agent_answers_requests_over_its_link(core: Core, tmp_path: Path) -> None:
    identity = await join_core(core, tmp_path)
    async with connecting(tmp_path) as agent:
        await agent.until_state("connected")
        hub = core.gateway.hub(identity.hub)
        assert hub is not None
        assert await hub.request("echo", word="hello") == {"word": "hello"}
        with pytest.raises(NotFound, match="no sing here"):
            await hub.request("sing")
    await until("the Hub is gone", lambda: core.gateway.hub(identity.hub) is not None)


async def test_session_goes_on_over_a_line_that_is_cut(core: Core, tmp_path: Path) -> None:
    """A channel's bytes arrive once and in order, over as many links as it takes."""
    data = os.urandom(3_000_000)
    async with line_to(core.port) as line:
        token = await core.join_token(addresses=[f"127.0.0.1:{line.port}"])
        identity = await join_core(core, tmp_path, token=token)
        # What the broker says of itself leads past the line.
        core.gateway._addresses = [f"127.0.0.1:{line.port}"]
        async with connecting(tmp_path) as agent:
            await agent.until_state("connected")
            hub = core.gateway.hub(identity.hub)
            assert hub is not None
            channel = await hub.open({"kind": "test"})
            agent.handler.channels[0].send(data)
            agent.handler.channels[0].finish()
            received = b""
            cuts = 0
            while piece := await channel.read():
                received += piece
                channel.consume(len(piece))
                if len(received) > (cuts + 1) * 700_000:
                    cuts += 1
                    line.cut()
            channel.finish()
            assert received == data
            assert cuts >= 3
            assert len(agent.handler.sessions) == 1


async def test_new_broker_begins_a_new_session(tmp_path: Path) -> None:
    async with running_core(tmp_path / "core") as core:
        port = core.port
        await join_core(core, tmp_path)
        agent_context = connecting(tmp_path)
        agent = await agent_context.__aenter__()
        await agent.until_state("connected")
        user = Collector()
        agent.handler.sessions[0].open({"kind": "unknown"}, user)
    try:
        async with running_core(tmp_path / "core", port=port):
            await until("there is another session", lambda: len(agent.handler.sessions) == 2)
            await until("the old channel has ended", lambda: user.error is not None)
            assert agent.handler.sessions[0].lost
            with pytest.raises(SessionLost):
                agent.handler.sessions[0].open({"kind": "test"}, user)
            await agent.until_state("connected")
    finally:
        await agent_context.__aexit__(None, None, None)


async def test_certificate_is_renewed_with_a_new_key_while_the_session_goes_on(
    tmp_path: Path,
) -> None:
    async with running_core(tmp_path / "core", lifetime=4.0) as core:
        first = await join_core(core, tmp_path)
        first_key = (first.directory / "key.pem").read_bytes()
        async with connecting(tmp_path) as agent:
            await agent.until_state("connected")
            await until(
                "the certificate was renewed twice",
                lambda: int(agent.connector.identity.directory.name) >= 3,
            )
            current = agent.store.current()
            assert current == agent.connector.identity
            assert current is not None
            assert current.hub == first.hub
            assert current.fingerprint != first.fingerprint
            assert (current.directory / "key.pem").read_bytes() != first_key
            assert not first.directory.exists()
            assert time.time() > first.issued + 2
            await agent.until_state("connected")
            assert len(agent.handler.sessions) == 1


async def test_expired_certificate_is_renewed_by_proof_of_its_key(tmp_path: Path) -> None:
    clock = Clock()
    async with running_core(tmp_path / "core", clock=clock) as core:
        identity = await join_core(core, tmp_path)
        clock.offset = 20 * DAY
        async with connecting(tmp_path) as agent:
            await agent.until_state("connected")
            assert agent.connector.identity.fingerprint != identity.fingerprint
            assert agent.store.current() == agent.connector.identity


async def test_certificate_that_expired_long_ago_asks_for_a_token(tmp_path: Path) -> None:
    clock = Clock()
    async with running_core(tmp_path / "core", clock=clock) as core:
        await join_core(core, tmp_path)
        clock.offset = 45 * DAY
        async with connecting(tmp_path) as agent:
            await agent.until_state("waiting")
            assert "expired too long ago" in agent.connector.status.problem
            assert "sth-agent join" in agent.connector.status.hint


async def test_revoked_agent_stops_and_comes_back_with_a_new_identity(
    core: Core, tmp_path: Path
) -> None:
    identity = await join_core(core, tmp_path)
    async with line_to(core.port) as line:
        core.gateway._addresses = [f"127.0.0.1:{line.port}"]
        async with connecting(tmp_path) as agent:
            await agent.until_state("connected")
            await core.hubs.revoke("default", identity.hub, by="test")
            await agent.until_state("revoked")
            assert "sth token create join" in agent.connector.status.hint
            again = await join_core(core, tmp_path, name="")
            assert again.name == identity.name
            agent.connector.reload()
            await agent.until_state("connected")
            assert agent.connector.identity == again


async def test_agent_that_was_revoked_while_away_learns_it(core: Core, tmp_path: Path) -> None:
    identity = await join_core(core, tmp_path)
    await core.hubs.revoke("default", identity.hub, by="test")
    async with connecting(tmp_path) as agent:
        await agent.until_state("revoked")


async def test_agent_names_a_broker_of_another_authority(core: Core, tmp_path: Path) -> None:
    await join_core(core, tmp_path / "here")
    async with running_core(tmp_path / "other") as other:
        identity = await join_core(other, tmp_path / "agent")
        store_file = identity.directory / "identity.json"
        text = store_file.read_text().replace(str(other.port), str(core.port))
        store_file.write_text(text)
        async with connecting(tmp_path / "agent") as agent:
            await agent.until_state("waiting")
            assert "certificate" in agent.connector.status.problem


async def test_agent_whose_certificate_is_foreign_to_the_broker_names_it(
    core: Core, tmp_path: Path
) -> None:
    """Under TLS 1.3 the refusal looks like the end of a finished handshake."""
    mine = await join_core(core, tmp_path / "agent")
    async with running_core(tmp_path / "other") as other:
        foreign = await join_core(other, tmp_path / "foreign")
    for name in ("key.pem", "certificate.pem"):
        shutil.copy(foreign.directory / name, mine.directory / name)
    facts = mine.directory / "identity.json"
    facts.write_text(facts.read_text().replace(mine.fingerprint, foreign.fingerprint))
    async with connecting(tmp_path / "agent") as agent:
        await agent.until_state("waiting")
        assert "does not know the certificate" in agent.connector.status.problem
        assert "join this machine again" in agent.connector.status.hint


async def test_agent_goes_on_trying_while_the_broker_is_away(core: Core, tmp_path: Path) -> None:
    async with line_to(core.port) as line:
        token = await core.join_token(addresses=[f"127.0.0.1:{line.port}"])
        await join_core(core, tmp_path, token=token)
        core.gateway._addresses = [f"127.0.0.1:{line.port}"]
        identity_file = next((tmp_path / "identity").glob("1/identity.json"))
        identity_file.write_text(identity_file.read_text().replace(str(core.port), str(line.port)))
        line.is_closed = True
        before = line.connections
        async with connecting(tmp_path) as agent:
            await until("it has tried again", lambda: line.connections >= before + 5)
            assert agent.state == "waiting"
            line.is_closed = False
            await agent.until_state("connected")


async def test_link_to_a_peer_that_fell_silent_ends(core: Core, tmp_path: Path) -> None:
    identity = await join_core(core, tmp_path)
    async with line_to(core.port) as line:
        link = await Link.dial(Address("127.0.0.1", line.port), identity.tls_context())
        info = HubInfo(name="pi", agent_version="1", arch="x", os="y", python="3")
        welcome = await link.greet(Hello(agent_boot=os.urandom(16), epoch=1, hub=info))
        session = Session(welcome.broker_boot, Nobody())
        session.mux.attach(peer_received=0)
        link.carry(session, heartbeat=0.1)
        line.is_silent = True
        ended = await asyncio.wait_for(link.wait_ended(), 20)
        assert isinstance(ended, Unreachable)
        assert "nothing came" in ended.message
        session.lose(SessionLost("the test is over"))


def test_tls_context_trusts_nobody_else(tmp_path: Path) -> None:
    """Neither the system's authorities nor a context that does not check names."""
    authority = CertificateAuthority.open(tmp_path, now=time.time())
    context = trusting_context(authority.pem)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert len(context.get_ca_certs()) == 1
