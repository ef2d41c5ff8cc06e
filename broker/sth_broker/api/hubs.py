"""Hubs: list, show, revoke."""

from aiohttp import web

from sth_broker.api.answers import answer
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.auth import Principal
from sth_broker.hub_record import Hub
from sth_broker.services import Services


async def list_hubs(request: web.Request) -> web.Response:
    """With `?all=true` those too that were revoked."""
    revoked = request.query.get("all") == "true"
    return answer(services(request).hub_views.shown(principal(request).space, revoked=revoked))


async def get_hub(request: web.Request) -> web.Response:
    """By id or name."""
    service = services(request)
    hub = service.hubs.get(principal(request).space, request.match_info["id"])
    return answer(service.hub_views.show(hub))


async def revoke(request: web.Request) -> web.Response:
    """Take a machine's identity back: its link is cut, and it is refused from now on."""
    service, who = services(request), principal(request)
    # It goes on when the client leaves: a machine is revoked altogether or not at all.
    hub = await service.background.shielded(_revoke(service, who, request.match_info["id"]))
    return answer(service.hub_views.show(hub))


async def _revoke(service: Services, who: Principal, name: str) -> Hub:
    hub = await service.hubs.revoke(who.space, name, by=who.token_id)
    service.instances.abandon(hub.space, hub.hub_id)
    return hub


ROUTES = (
    Route("GET", f"{BASE}/hubs", list_hubs, "read"),
    Route("GET", f"{BASE}/hub/{{id}}", get_hub, "read"),
    Route("POST", f"{BASE}/hub/{{id}}/_revoke", revoke, "admin"),
)
