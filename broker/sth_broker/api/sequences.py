"""Sequences: upload, list, show, replace, delete, and start."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sth_broker.api import bodies
from sth_broker.api.answers import answer
from sth_broker.api.errors import error_response
from sth_broker.api.route import BASE, Route, principal, services
from sth_broker.instance_control import StartRequest
from sth_broker.sequences import MAX_NAME, Sequence, describe
from sth_broker.services import Services
from sth_broker.uploads import receive_package
from sth_protocol.errors import BadRequest, Conflict, SthError, TooLarge
from sth_protocol.ids import check_instance_id, check_topic_name
from sth_protocol.model import Json

_PACKAGE_TYPES = ("application/gzip", "application/x-gzip", "application/x-tar")


async def list_sequences(request: web.Request) -> web.Response:
    service, space = services(request), principal(request).space
    return answer([_shown(service, each) for each in service.sequences.list(space)])


async def get_sequence(request: web.Request) -> web.Response:
    service, sequence = _found(request)
    return answer(_shown(service, sequence))


async def list_its_instances(request: web.Request) -> web.Response:
    service, sequence = _found(request)
    return answer(service.instances.live_of(sequence.space, sequence.id))


async def upload(request: web.Request) -> web.Response:
    """Register a package. `?name=` gives the Sequence another name than the package's own."""
    service, space = services(request), principal(request).space
    _check_upload(request, service)
    name = _asked_name(request)
    limit = service.config.max_package_bytes
    async with receive_package(
        bodies.chunks(request), service.packages, max_bytes=limit
    ) as package:
        sequence = describe(package, space=space, name=name)
        # Complete and sound: it is registered even if the client leaves now.
        await service.background.completed(service.sequences.add(sequence, package.path))
    return answer({"id": sequence.id})


async def replace(request: web.Request) -> web.Response:
    """Give a Sequence another package under the same id."""
    service, before = _found(request)
    _check_upload(request, service)
    limit = service.config.max_package_bytes
    async with receive_package(
        bodies.chunks(request), service.packages, max_bytes=limit
    ) as package:
        if service.instances.live_of(before.space, before.id):
            raise Conflict("Can't update sequence with instances", hint="stop them first")
        content = describe(package, space=before.space)
        await service.background.completed(service.sequences.update(before, content, package.path))
    return answer({"id": before.id})


async def delete(request: web.Request) -> web.Response:
    """Delete a Sequence; with the header x-seq-kill-inst its Instances are killed first."""
    service, sequence = _found(request)
    live = service.instances.live_of(sequence.space, sequence.id)
    if live and "x-seq-kill-inst" not in request.headers:
        raise Conflict(
            "Can't remove- Sequence in use", hint=f"{len(live)} Instances of it have not ended"
        )
    await service.background.shielded(_remove(service, sequence, live))
    return answer({"id": sequence.id})


async def _remove(service: Services, sequence: Sequence, live: list[str]) -> None:
    for instance in live:
        await service.control.kill(sequence.space, instance, remove=False)
    await service.sequences.remove(sequence)


async def start(request: web.Request) -> web.Response:
    """Start an Instance. An older generation of the original's clients looks at `result` in the
    body, the newer at the status."""
    try:
        service, sequence = _found(request)
        asked = parse_start(await bodies.read_object(request))
        instance = await service.control.start(sequence, asked)
    except SthError as error:
        return error_response(error, result="error")
    identity = instance.instance
    return answer(
        {
            "message": f"Sequence {identity} starting",
            "id": identity,
            "hub": instance.hub,
            "hubName": instance.hub_name,
        }
    )


def parse_start(body: Mapping[str, Any]) -> StartRequest:
    """What the body of a start asks for; BadRequest and BadName say what is wrong with it."""
    take = bodies.take
    input_topic = take(body, "inputTopic", str, default="")
    output_topic = take(body, "outputTopic", str, default="")
    instance = take(body, "instanceId", str, default="")
    return StartRequest(
        args=take(body, "args", list, default=[]),
        config=take(body, "appConfig", dict, default={}),
        input_topic=check_topic_name(input_topic) if input_topic else "",
        output_topic=check_topic_name(output_topic) if output_topic else "",
        limits=take(body, "limits", dict, default={}),
        instance=check_instance_id(instance) if instance else "",
        hub=take(body, "hub", str, default=""),
    )


def _found(request: web.Request) -> tuple[Services, Sequence]:
    service = services(request)
    return service, service.sequences.get(principal(request).space, request.match_info["id"])


def _shown(service: Services, sequence: Sequence) -> Json:
    return {
        **sequence.public_json(),
        "instances": service.instances.live_of(sequence.space, sequence.id),
    }


def _check_upload(request: web.Request, service: Services) -> None:
    bodies.require_octets(request, *_PACKAGE_TYPES)
    limit = service.config.max_package_bytes
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the package is larger than {limit} bytes")


def _asked_name(request: web.Request) -> str:
    name = request.query.get("name", "")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(f"the name has more than {MAX_NAME} or unprintable characters")
    return name


ROUTES = (
    Route("GET", f"{BASE}/sequences", list_sequences, "read"),
    Route("POST", f"{BASE}/sequence", upload, "run"),
    Route("GET", f"{BASE}/sequence/{{id}}", get_sequence, "read"),
    Route("PUT", f"{BASE}/sequence/{{id}}", replace, "run"),
    Route("DELETE", f"{BASE}/sequence/{{id}}", delete, "run"),
    Route("GET", f"{BASE}/sequence/{{id}}/instances", list_its_instances, "read"),
    Route("POST", f"{BASE}/sequence/{{id}}/start", start, "run"),
)
