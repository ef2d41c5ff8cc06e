"""Instances: list, show, health, stop, kill. Their streams are in instance_streams."""

from http import HTTPStatus

from aiohttp import web

from sth_broker.api import bodies
from sth_broker.api.answers import answer
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.instance_record import public_json
from sth_broker.instances import now_ms
from sth_protocol.errors import BadRequest
from sth_protocol.lifecycle import MAX_STOP_MS

# The codes of the original's control messages.
STOP = 4001
KILL = 4002

DEFAULT_STOP_MS = 7000


async def list_instances(request: web.Request) -> web.Response:
    """Those that live, and those whose streams can still be read; with `?all=true` every record."""
    service = services(request)
    oldest = now_ms() - int(service.config.stream_retention * 1000)
    everything = request.query.get("all") == "true"
    known = sorted(
        service.instances.known(principal(request).space).values(),
        key=lambda each: (each.created_ms, each.instance),
    )
    return answer(
        [
            public_json(each)
            for each in known
            if everything or not each.ended or each.ended_ms > oldest
        ]
    )


async def get_instance(request: web.Request) -> web.Response:
    instances = services(request).instances
    return answer(public_json(instances.get(principal(request).space, request.match_info["id"])))


async def get_health(request: web.Request) -> web.Response:
    return answer(
        await services(request).control.health(principal(request).space, request.match_info["id"])
    )


async def stop(request: web.Request) -> web.Response:
    """Ask the program to end; the answer comes when it has."""
    service, space, identity = services(request), principal(request).space, request.match_info["id"]
    service.instances.get(space, identity)
    body = await bodies.read_message(request, STOP)
    timeout = body.get("timeout", DEFAULT_STOP_MS)
    if type(timeout) is not int or not 0 <= timeout <= MAX_STOP_MS:
        raise BadRequest("Invalid timeout format", hint="milliseconds, at most a day")
    can_keepalive = body.get("canCallKeepalive", False)
    if type(can_keepalive) is not bool:
        raise BadRequest("Invalid canCallKeepalive format", hint="true or false")
    instance = await service.control.stop(
        space, identity, timeout_ms=timeout, can_keepalive=can_keepalive
    )
    return answer(public_json(instance), status=HTTPStatus.ACCEPTED)


async def kill(request: web.Request) -> web.Response:
    """End the program at once; the answer comes when it has ended."""
    service, space, identity = services(request), principal(request).space, request.match_info["id"]
    service.instances.get(space, identity)
    body = await bodies.read_message(request, KILL)
    remove = body.get("removeImmediately", False)
    if type(remove) is not bool:
        raise BadRequest("Invalid removeImmediately format", hint="true or false")
    instance = await service.control.kill(space, identity, remove=remove)
    return answer(public_json(instance), status=HTTPStatus.ACCEPTED)


ROUTES = (
    Route("GET", f"{BASE}/instances", list_instances, "read"),
    Route("GET", f"{BASE}/instance/{{id}}", get_instance, "read"),
    Route("GET", f"{BASE}/instance/{{id}}/health", get_health, "read"),
    Route("POST", f"{BASE}/instance/{{id}}/_stop", stop, "run"),
    Route("POST", f"{BASE}/instance/{{id}}/_kill", kill, "run"),
)
