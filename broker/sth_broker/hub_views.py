"""Hubs as the scheduler and the API see them: the record, the link and the Instances together."""

from collections import Counter

from sth_broker.gateway import Gateway
from sth_broker.hub_record import Hub
from sth_broker.hubs import HubRegistry
from sth_broker.instance_record import timestamp
from sth_broker.instances import InstanceRegistry
from sth_broker.scheduler import HubState
from sth_protocol.model import Json


class HubViews:
    """Puts together what three registries know."""

    def __init__(self, *, hubs: HubRegistry, gateway: Gateway, instances: InstanceRegistry) -> None:
        self._hubs = hubs
        self._gateway = gateway
        self._instances = instances

    def states(self, space: str) -> list[HubState]:
        """The Hubs of a Space among which the scheduler may choose."""
        counts = self._counts(space)
        return [
            HubState(
                hub_id=each.hub_id,
                name=each.name,
                online=self.is_online(each.hub_id),
                languages=_languages(each),
                instances=counts[each.hub_id],
            )
            for each in self._hubs.list(space)
        ]

    def is_online(self, hub_id: str) -> bool:
        return self._gateway.hub(hub_id) is not None

    def shown(self, space: str, *, revoked: bool = False) -> list[Json]:
        """All Hubs of a Space as the API shows them."""
        counts = self._counts(space)
        return [
            self._json(each, counts[each.hub_id])
            for each in self._hubs.list(space, revoked=revoked)
        ]

    def show(self, hub: Hub) -> Json:
        """One Hub as the API shows it."""
        return self._json(hub, self._counts(hub.space)[hub.hub_id])

    def _counts(self, space: str) -> Counter[str]:
        return Counter(each.hub for each in self._instances.live(space))

    def _json(self, hub: Hub, instances: int) -> Json:
        link = self._gateway.hub(hub.hub_id)
        info = link.info if link is not None else hub.info
        shown: Json = {
            "id": hub.hub_id,
            "name": hub.name,
            "space": hub.space,
            "status": self._status(hub),
            "created": timestamp(hub.created_ms),
            "lastSeen": timestamp(hub.last_seen_ms) if hub.last_seen_ms else "",
            "instances": instances,
            "agentVersion": info.agent_version,
            "arch": info.arch,
            "os": info.os,
            "hostName": info.host_name,
            "python": info.python,
            "node": info.node,
            "labels": info.labels,
            "sandbox": info.sandbox,
        }
        if link is not None:
            shown["remote"] = link.remote
            shown["rttMs"] = None if link.rtt is None else round(link.rtt * 1000, 3)
        return shown

    def _status(self, hub: Hub) -> str:
        if hub.revoked:
            return "revoked"
        return "online" if self.is_online(hub.hub_id) else "offline"


def _languages(hub: Hub) -> frozenset[str]:
    return frozenset({"python", "node"} if hub.info.node else {"python"})
