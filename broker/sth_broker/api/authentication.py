"""Every request is let in here or not at all: by its Host, its token, and the token's scope."""

from collections.abc import Mapping
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Middleware

from sth_broker.api.route import BASE, PRINCIPAL, Handler, Route
from sth_broker.auth import require
from sth_broker.config import Config
from sth_broker.services import SERVICES
from sth_protocol.errors import Forbidden


def allowed_hosts(config: Config) -> frozenset[str] | None:
    """The names by which a broker on loopback may be addressed; None: any. A page of somebody
    else's can make a browser send requests to 127.0.0.1 under the page's own name; without a token
    it gains nothing, and with this check not even an answer."""
    if not config.listen.is_loopback:
        return None
    own = {"localhost", config.listen.host, *(_host_of(each) for each in config.advertise)}
    return frozenset(own)


def host_middleware(hosts: frozenset[str] | None) -> Middleware:
    """Refuses requests that are addressed to another host. `hosts`: see `allowed_hosts`."""

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = _host_of(request.headers.get("Host", ""))
        if hosts is not None and host not in hosts and not _is_loopback(host):
            raise Forbidden(
                f"this broker is not called {host[:80]}",
                hint="name it with --advertise, or use 127.0.0.1",
            )
        return await handler(request)

    return check_host


def authentication_middleware(routes: Mapping[web.AbstractRoute, Route]) -> Middleware:
    """Lets through who may call a route. What is below the API's base and is no route asks for a
    token too, so that nobody learns without one what there is."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = routes.get(request.match_info.route)
        if route is None and not request.path.startswith(BASE):
            return await handler(request)
        if route is not None and route.scope is None:
            return await handler(request)
        authenticator = request.app[SERVICES].authenticator
        bearer = await authenticator.authenticate(request.headers.get("Authorization"))
        if route is not None and route.scope is not None:
            require(bearer, route.scope)
        request[PRINCIPAL] = bearer
        return await handler(request)

    return authenticate


def _host_of(text: str) -> str:
    """The host of a Host header, without port and brackets."""
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    return text.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
