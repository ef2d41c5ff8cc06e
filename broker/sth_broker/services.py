"""What the routes work with: the parts of a running broker, under one key of the application."""

from dataclasses import dataclass

from aiohttp import web

from sth_broker.auth import Authenticator
from sth_broker.background import Background
from sth_broker.config import Config
from sth_broker.gateway import Gateway
from sth_broker.hub_views import HubViews
from sth_broker.hubs import HubRegistry
from sth_broker.instance_control import InstanceControl
from sth_broker.instances import InstanceRegistry
from sth_broker.pki import CertificateAuthority
from sth_broker.sequences import SequenceRegistry
from sth_broker.store.interface import Packages
from sth_broker.stream_readers import StreamReaders
from sth_broker.tokens import TokenService
from sth_broker.topics import TopicService


@dataclass(frozen=True, slots=True)
class Services:
    """Made by app, and by nothing else."""

    config: Config
    packages: Packages
    authenticator: Authenticator
    tokens: TokenService
    authority: CertificateAuthority
    gateway: Gateway
    hubs: HubRegistry
    hub_views: HubViews
    sequences: SequenceRegistry
    instances: InstanceRegistry
    control: InstanceControl
    readers: StreamReaders
    topics: TopicService
    background: Background
    # What join tokens name.
    addresses: tuple[str, ...]


SERVICES = web.AppKey("services", Services)
