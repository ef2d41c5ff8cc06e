"""What a route is: their table is data, so that tests and documents can be made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from sth_broker.auth import Principal
from sth_broker.services import SERVICES, Services
from sth_broker.tokens import Scope

BASE = "/api/v1"
PRINCIPAL = web.RequestKey("principal", Principal)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """`scope`: what the caller's token must allow; None: anybody may call it. `streams`: it answers
    for as long as somebody reads or writes."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    streams: bool = False


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


def principal(request: web.Request) -> Principal:
    """Who asks; only on routes with a scope."""
    return request[PRINCIPAL]
