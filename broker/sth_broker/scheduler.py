"""Where an Instance shall run: a pure decision from the state of the Hubs."""

from collections.abc import Iterable
from dataclasses import dataclass

from sth_protocol.errors import Conflict, HubOffline, NotFound


@dataclass(frozen=True, slots=True)
class HubState:
    """What the decision needs to know of one Hub. `languages`: those that it can run."""

    hub_id: str
    name: str
    online: bool
    languages: frozenset[str]
    instances: int = 0


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """`hub`: id or name that was asked for; empty: any."""

    language: str
    hub: str = ""


def choose(hubs: Iterable[HubState], request: PlacementRequest) -> HubState:
    """The Hub for this request: the one asked for, else the one with the fewest Instances (by name
    among equals). `hubs` holds those of one Space, without revoked ones. NotFound, HubOffline or
    Conflict say why there is none."""
    candidates = list(hubs)
    if request.hub:
        return _asked_for(candidates, request)
    online = [each for each in candidates if each.online]
    if not online:
        raise HubOffline(
            "no Hub is online" if candidates else "no Hub has joined this Space yet",
            hint="`sth hub ls` shows them; `sth token create join` adds one",
        )
    able = [each for each in online if request.language in each.languages]
    if not able:
        raise Conflict(
            f"no Hub that is online can run {request.language}",
            hint=_install(request.language, "a Hub"),
        )
    return min(able, key=lambda each: (each.instances, each.name, each.hub_id))


def _asked_for(hubs: list[HubState], request: PlacementRequest) -> HubState:
    found = [each for each in hubs if each.hub_id == request.hub] or [
        each for each in hubs if each.name == request.hub
    ]
    if not found:
        raise NotFound(f"Hub {request.hub} not found", hint="`sth hub ls` shows them")
    hub = next((each for each in found if each.online), found[0])
    if not hub.online:
        raise HubOffline(
            f"Hub {hub.name} is offline",
            hint="start it: `sth-agent run` there; or choose another Hub",
        )
    if request.language not in hub.languages:
        raise Conflict(
            f"Hub {hub.name} cannot run {request.language}",
            hint=_install(request.language, f"Hub {hub.name}"),
        )
    return hub


def _install(language: str, where: str) -> str:
    if language == "node":
        return f"install Node.js 18 or newer on {where} and restart its agent"
    return f"install {language} on {where}"
