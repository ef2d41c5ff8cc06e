"""The application that serves the API: middlewares, routes, and what they work with."""

from typing import Any

from aiohttp import web

from sth_broker.api.authentication import allowed_hosts, authentication_middleware, host_middleware
from sth_broker.api.bodies import leave_expectation
from sth_broker.api.errors import errors_middleware
from sth_broker.api.route import Route
from sth_broker.api.table import ROUTES
from sth_broker.services import SERVICES, Services

# Streams end at once when the broker stops; what else is answered gets so long, twice.
SHUTDOWN_SECONDS = 0.5
KEEPALIVE_SECONDS = 75.0

# For every connection of the API.
SERVER_OPTIONS: dict[str, Any] = {
    "access_log": None,
    # Bytes go to programs and disks as they came; the original does not unpack them either.
    "auto_decompress": False,
    # Whoever leaves is not worked for any more; what must not stop half-way is shielded.
    "handler_cancellation": True,
    "keepalive_timeout": KEEPALIVE_SECONDS,
    "shutdown_timeout": SHUTDOWN_SECONDS,
}


def make_application(services: Services) -> web.Application:
    """The API of a broker."""
    known: dict[web.AbstractRoute, Route] = {}
    application = web.Application(
        middlewares=[
            errors_middleware,
            host_middleware(allowed_hosts(services.config)),
            authentication_middleware(known),
        ]
    )
    application[SERVICES] = services
    for route in ROUTES:
        added = application.router.add_route(
            route.method, route.path, route.handler, expect_handler=leave_expectation
        )
        known[added] = route
    return application
