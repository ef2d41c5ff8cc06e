"""Keeps this machine linked to its broker for ever: dials, greets, resumes, names what is wrong.

A refusal of our certificate under TLS 1.3 looks like a finished handshake and a bare end of stream.
So after one the broker is asked without the certificate what it thinks of it.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from sth_agent import enrolment
from sth_agent.addresses import Address, address_list
from sth_agent.backoff import Backoff
from sth_agent.broker_http import CertificateRefused, ConnectionCut
from sth_agent.connection_state import ConnectionState
from sth_agent.credentials import Identity, IdentityStore
from sth_agent.link import Link
from sth_agent.session import Handler, Session
from sth_protocol import handshake
from sth_protocol.errors import (
    CertificateExpired,
    Forbidden,
    Internal,
    Misconfigured,
    Revoked,
    SessionLost,
    SthError,
    Unreachable,
)
from sth_protocol.handshake import Hello, Welcome
from sth_protocol.model import HubInfo
from sth_protocol.session import Fresh, HeldSession, Refuse, Resume, decide_welcome

logger = logging.getLogger(__name__)


class ServiceHandler(Handler, Protocol):
    """What the agent does for the broker, and what it does when a session begins."""

    def session_began(self, session: Session) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """`state`: connecting, connected, waiting, revoked; `since`: seconds since 1970; `problem`: why
    it is not connected."""

    state: str
    since: float
    address: str = ""
    problem: str = ""
    hint: str = ""


class Connector:
    """`session`: the present one, which may be without a link for a while."""

    def __init__(
        self,
        *,
        store: IdentityStore,
        identity: Identity,
        state: ConnectionState,
        hub: HubInfo,
        handler: ServiceHandler,
        backoff: Backoff | None = None,
    ) -> None:
        self.identity = identity
        self.session: Session | None = None
        self.status = ConnectionStatus("connecting", time.time())
        self._store = store
        self._state = state
        self._hub = hub
        self._handler = handler
        self._backoff = backoff or Backoff(random.uniform)
        self._boot = os.urandom(handshake.BOOT_BYTES)
        self._epoch = 0
        self._candidate: Identity | None = None
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    async def run(self) -> None:
        """Connect and reconnect until cancelled."""
        try:
            while True:
                try:
                    await self._connect_once()
                except OSError as error:
                    # A full disk, or a key that cannot be read: it may be repaired.
                    text = f"the state directory cannot be used: {error}"
                    self._set_status("waiting", problem=text)
                if self.status.state == "revoked":
                    await self._changed.wait()
                else:
                    await self._pause()
        finally:
            if self._link is not None:
                self._link.close(Unreachable("the agent ends"))

    def reload(self) -> None:
        """The identity on disk has changed: use it at once."""
        identity = self._store.current()
        if identity is None:
            raise Misconfigured("this machine has not joined a broker")
        self.identity, self._candidate = identity, None
        self._reconnect()

    def adopt(self, candidate: Identity) -> None:
        """Connect with a renewed identity; it takes the old one's place when that has worked."""
        self._candidate = candidate
        self._reconnect()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever `status` has changed."""
        self._listeners.append(listener)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the broker may be, what it told last first."""
        return address_list(self._state.addresses, self.identity.addresses)

    def told(self, addresses: tuple[str, ...]) -> None:
        """The broker said where it can be reached from now on."""
        self._state.remember(addresses)

    def revoke(self) -> None:
        """The broker took this identity back."""
        error = Revoked("the broker has revoked this machine")
        logger.warning("%s; %s", error.message, error.hint)
        self._set_status("revoked", problem=error.message, hint=error.hint)
        if self._link is not None:
            self._link.close(error)

    # -- connecting ----------------------------------------------------------------------------

    async def _connect_once(self) -> None:
        """Try every address; returns when the link that was had has ended, or none was had."""
        self._changed.clear()
        identity = self._candidate or self.identity
        problems: list[SthError] = []
        for address in self.addresses:
            try:
                link = await Link.dial(address, identity.tls_context())
            except SthError as error:
                problems.append(error)
                if isinstance(error, ConnectionCut | Forbidden):
                    break
                continue
            await self._use(link, address, identity)
            return
        await self._explain(identity, problems)

    async def _use(self, link: Link, address: Address, identity: Identity) -> None:
        self._link = link
        try:
            welcome = await link.greet(self._hello(identity))
            self._begin(link, welcome)
            self._backoff.succeeded()
            self._promote(identity)
            self._state.remember(tuple(welcome.addresses))
            self._set_status("connected", address=str(address))
            ended = await link.wait_ended()
        except SthError as error:
            link.close(error)
            ended = error
        except OSError as error:
            link.close(Internal(str(error)))
            raise
        finally:
            self._link = None
        await self._explain(identity, [ended])

    def _hello(self, identity: Identity) -> Hello:
        held = self._held()
        self._epoch = self._state.next_epoch()
        return Hello(
            agent_boot=self._boot,
            epoch=self._epoch,
            hub=replace(self._hub, name=identity.name),
            broker_boot=held.broker_boot if held else None,
            received=self.session.mux.received if held and self.session else 0,
        )

    def _held(self) -> HeldSession | None:
        session = self.session
        if session is None or session.lost:
            return None
        return HeldSession(self._boot, session.broker_boot, self._epoch, session.mux.resumable)

    def _begin(self, link: Link, welcome: Welcome) -> None:
        heartbeat = welcome.heartbeat_ms / 1000
        match decide_welcome(self._held(), welcome):
            case Refuse(error):
                if self.session is not None and isinstance(error, SessionLost):
                    self.session.lose(error)
                raise error
            case Resume(peer_received) if self.session is not None:
                self.session.mux.attach(peer_received=peer_received)
                link.carry(self.session, heartbeat=heartbeat)
                logger.info("linked again, the session goes on")
            case Fresh(lost):
                if self.session is not None:
                    self.session.lose(lost or SessionLost("the session is over"))
                self.session = Session(welcome.broker_boot, self._handler)
                self.session.mux.attach(peer_received=0)
                self._handler.session_began(self.session)
                link.carry(self.session, heartbeat=heartbeat)
                logger.info("Hub %s is linked, a new session begins", self.identity.name)

    def _promote(self, identity: Identity) -> None:
        if identity is self._candidate:
            self._store.promote(identity)
            self.identity, self._candidate = identity, None
            logger.info("connected with the renewed certificate")

    # -- when it fails -------------------------------------------------------------------------

    async def _explain(self, identity: Identity, problems: list[SthError]) -> None:
        """Find out what the failure means, and act on it."""
        if self._changed.is_set() or self.status.state == "revoked":
            return
        problem = problems[-1] if problems else Unreachable("no address of the broker is known")
        if isinstance(problem, ConnectionCut):
            problem = await self._diagnosis(identity, problem)
        if isinstance(problem, CertificateExpired):
            problem = await self._renew_expired(identity) or problem
        if isinstance(problem, Revoked) and identity is self.identity:
            self._set_status("revoked", problem=problem.message, hint=problem.hint)
            return
        if identity is self._candidate and isinstance(problem, Forbidden):
            logger.warning("the renewed certificate is refused: %s", problem.message)
            self._store.discard(identity)
            self._candidate = None
        text = "; ".join(each.message for each in [*problems[:-1], problem])
        self._set_status("waiting", problem=text, hint=problem.hint)

    async def _diagnosis(self, identity: Identity, cut: ConnectionCut) -> SthError:
        try:
            answer = await asyncio.to_thread(
                enrolment.whoami, self.addresses, identity, anonymous=True
            )
        except CertificateRefused as error:
            return Unreachable(
                f"another broker answers at that address: {error.message}",
                hint="check the address, or join this machine to that broker with a token",
            )
        except SthError as error:
            return error if isinstance(error, Revoked | CertificateExpired) else cut
        match answer.state:
            case "revoked":
                return Revoked("the broker has revoked this machine")
            case "expired":
                return CertificateExpired("the certificate of this machine has expired")
            case "unknown":
                return Unreachable(
                    "the broker does not know the certificate of this machine",
                    hint="join this machine again with a new token",
                )
        return cut

    async def _renew_expired(self, identity: Identity) -> SthError | None:
        """A new certificate by proof of the old key; the error if there is none to be had."""
        key_file = self._store.request_key("renewal")
        try:
            issued = await asyncio.to_thread(enrolment.renew, self.addresses, identity, key_file)
        except CertificateExpired:
            return CertificateExpired(
                "the certificate of this machine has expired too long ago to be renewed",
                hint="join this machine again: sth-agent join TOKEN",
            )
        except SthError as error:
            return error
        self._candidate = self._store.add(key_file, issued)
        key_file.unlink(missing_ok=True)
        logger.info("the expired certificate was renewed")
        self._changed.set()
        return None

    async def _pause(self) -> None:
        if self._changed.is_set():
            return
        delay = self._backoff.next_delay()
        logger.info("not linked (%s); next try in %.1f s", self.status.problem, delay)
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _reconnect(self) -> None:
        self._changed.set()
        self._set_status("connecting")
        if self._link is not None:
            self._link.close(Unreachable("the agent connects anew"))

    def _set_status(
        self, state: str, *, address: str = "", problem: str = "", hint: str = ""
    ) -> None:
        self.status = ConnectionStatus(state, time.time(), address, problem, hint)
        for listener in self._listeners:
            listener()
