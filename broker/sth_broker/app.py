"""A running broker: its parts made in order, and ended in the opposite one. Wiring only."""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from sth_broker import listeners
from sth_broker.addresses import advertised
from sth_broker.agents_port import AgentsPort
from sth_broker.api.application import SERVER_OPTIONS, make_application
from sth_broker.api.server import ApiRunner
from sth_broker.audit import AuditLog
from sth_broker.auth import Authenticator
from sth_broker.background import Background
from sth_broker.config import Address, Config, parse_address
from sth_broker.data_directory import DataDirectory
from sth_broker.enrolment import Enrolment
from sth_broker.gateway import Gateway
from sth_broker.hub_sync import HubSync
from sth_broker.hub_views import HubViews
from sth_broker.hubs import HubRegistry
from sth_broker.instance_control import InstanceControl
from sth_broker.instances import InstanceRegistry
from sth_broker.package_channel import PackageServer
from sth_broker.pki import CertificateAuthority
from sth_broker.private_files import write_private
from sth_broker.sequences import SequenceRegistry
from sth_broker.services import Services
from sth_broker.store.embedded import Store, open_store
from sth_broker.stream_readers import StreamReaders
from sth_broker.tokens import TokenService
from sth_broker.topics import TopicService
from sth_protocol.errors import Unauthorized
from sth_protocol.ids import DEFAULT_SPACE, LOCAL_HUB

BY_BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs. `url`: of its API, as this machine reaches it; `agents`: host and port
    of the agents' port."""

    directory: DataDirectory
    url: str
    agents: str
    services: Services

    async def make_join_token(self) -> str:
        """For the built-in Hub, which dials the loopback address."""
        listening = parse_address(self.agents, default_port=0)
        return await self.services.tokens.make_join(
            space=DEFAULT_SPACE,
            addresses=[str(_reachable(listening, listening.port))],
            pins=[self.services.authority.pin],
            by=BY_BROKER,
        )

    def is_local_hub_online(self) -> bool:
        hubs = self.services.hub_views.states(DEFAULT_SPACE)
        return any(each.online and each.name == LOCAL_HUB for each in hubs)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Broker]:
    """A broker, from its data directory to its open ports; it ends with the context."""
    directory = DataDirectory(config.data)
    async with AsyncExitStack() as stack:
        stack.enter_context(directory.hold())
        api_socket, agents_socket = _bind(config, stack)
        agents_address = Address(config.agents.host, listeners.port_of(agents_socket))
        store = open_store(directory.store)
        stack.push_async_callback(store.close)
        audit = AuditLog(directory.audit)
        stack.callback(audit.close)
        services = await _make_services(
            config, directory, store, audit, advertised(config, port=agents_address.port), stack
        )
        await _prepare_space(services, store, directory)
        await _serve_agents(services, store, audit, directory, agents_socket, stack)
        await _serve_api(services, api_socket, stack)
        broker = Broker(
            directory=directory,
            url=f"http://{_reachable(config.listen, listeners.port_of(api_socket))}",
            agents=str(agents_address),
            services=services,
        )
        await asyncio.to_thread(_write_facts, broker, api_socket, agents_socket)
        stack.callback(directory.facts.unlink, missing_ok=True)
        yield broker


def _bind(config: Config, stack: AsyncExitStack) -> tuple[socket.socket, socket.socket]:
    api_before, agents_before = listeners.last_ports(config.data)
    api = stack.enter_context(listeners.bind(config.listen, option="--listen", again=api_before))
    agents = stack.enter_context(
        listeners.bind(config.agents, option="--agents", again=agents_before)
    )
    return api, agents


async def _make_services(
    config: Config,
    directory: DataDirectory,
    store: Store,
    audit: AuditLog,
    addresses: tuple[str, ...],
    stack: AsyncExitStack,
) -> Services:
    records, packages = store.records, store.packages
    background = Background()
    tokens = TokenService(records, audit, directory.keys)
    gateway = Gateway(addresses=addresses)
    hubs = HubRegistry(records, audit, gateway)
    await hubs.load()
    stack.push_async_callback(hubs.close)
    sequences = SequenceRegistry(records=records, packages=packages)
    await sequences.load()
    instances = InstanceRegistry(records=records, max_ended=config.max_ended_instances)
    await instances.load()
    stack.push_async_callback(instances.close)
    topics = TopicService(store)
    await topics.remove_orphans()
    stack.push_async_callback(topics.close)
    stack.push_async_callback(background.close)
    hub_views = HubViews(hubs=hubs, gateway=gateway, instances=instances)
    control = InstanceControl(
        registry=instances,
        gateway=gateway,
        hubs=hub_views,
        background=background,
        start_timeout=config.start_timeout,
    )
    sync = HubSync(
        registry=instances,
        control=control,
        sequences=sequences,
        hubs=hubs,
        background=background,
        retention=config.stream_retention,
    )
    stack.callback(sync.close)
    gateway.on_request("hub.sync", sync.on_sync)
    gateway.on_notify("instance.state", sync.on_state)
    package_server = PackageServer(sequences=sequences, packages=packages)
    gateway.on_channel("package", package_server.serve)
    gateway.on_channel("publish", topics.serve_publish)
    gateway.on_channel("subscribe", topics.serve_subscribe)
    return Services(
        config=config,
        packages=packages,
        authenticator=Authenticator(records, tokens),
        tokens=tokens,
        authority=CertificateAuthority.open(directory.keys, now=time.time()),
        gateway=gateway,
        hubs=hubs,
        hub_views=hub_views,
        sequences=sequences,
        instances=instances,
        control=control,
        readers=StreamReaders(stall=config.reader_stall),
        topics=topics,
        background=background,
        addresses=addresses,
    )


async def _prepare_space(services: Services, store: Store, directory: DataDirectory) -> None:
    """The default Space, and a token that may do everything in it, kept from start to start."""
    key = f"space/{DEFAULT_SPACE}"
    if await store.records.get(key) is None:
        await store.records.put(key, {"name": DEFAULT_SPACE, "created_ms": time.time_ns() // 10**6})
    try:
        token = directory.admin_token.read_text().strip()
        await services.authenticator.authenticate(f"Bearer {token}")
    except (FileNotFoundError, Unauthorized):
        token = await services.tokens.make_api(
            space=DEFAULT_SPACE, scope="admin", name="made by sth-broker up", by=BY_BROKER
        )
        await asyncio.to_thread(write_private, directory.admin_token, f"{token}\n".encode())


async def _serve_agents(
    services: Services,
    store: Store,
    audit: AuditLog,
    directory: DataDirectory,
    listening: socket.socket,
    stack: AsyncExitStack,
) -> None:
    enrolment = Enrolment(
        records=store.records,
        tokens=services.tokens,
        hubs=services.hubs,
        audit=audit,
        authority=services.authority,
        addresses=services.addresses,
    )
    port = AgentsPort(
        authority=services.authority,
        directory=directory.keys,
        names=[parse_address(each, default_port=0).host for each in services.addresses],
        hubs=services.hubs,
        enrolment=enrolment,
        gateway=services.gateway,
    )
    services.gateway.start()
    stack.push_async_callback(port.close)
    stack.push_async_callback(services.gateway.close)
    await port.start(listening)


async def _serve_api(services: Services, listening: socket.socket, stack: AsyncExitStack) -> None:
    runner = ApiRunner(make_application(services), **SERVER_OPTIONS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listening).start()
    # Streams first: they would not end by themselves.
    stack.callback(services.readers.close)


def _write_facts(broker: Broker, api: socket.socket, agents: socket.socket) -> None:
    facts = {"url": broker.url, "agents": broker.agents, "pid": os.getpid()}
    ports = {"api": listeners.port_of(api), "agents": listeners.port_of(agents)}
    listeners.save_ports(broker.directory.path, **ports)
    write_private(broker.directory.facts, json.dumps(facts).encode())


def _reachable(listen: Address, port: int) -> Address:
    """The address as programs on this machine dial it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    return Address(host, port)
