"""Placement: a pure decision, so that every case can be written down."""

import pytest

from sth_broker.scheduler import HubState, PlacementRequest, choose
from sth_protocol.errors import Conflict, HubOffline, NotFound

BOTH = frozenset({"python", "node"})
PYTHON = frozenset({"python"})


def hub(
    name: str, *, online: bool = True, instances: int = 0, can: frozenset[str] = BOTH
) -> HubState:
    return HubState(f"id-{name}", name, online, can, instances)


def test_choose_takes_the_hub_with_the_fewest_instances() -> None:
    hubs = [hub("a", instances=2), hub("b", instances=1), hub("c", instances=3)]
    assert choose(hubs, PlacementRequest("python")).name == "b"


def test_choose_among_equals_goes_by_name() -> None:
    assert choose([hub("b"), hub("a")], PlacementRequest("python")).name == "a"


def test_choose_passes_over_what_is_offline_or_lacks_the_language() -> None:
    hubs = [hub("a", online=False), hub("b", can=PYTHON), hub("c", instances=9)]
    assert choose(hubs, PlacementRequest("node")).name == "c"


@pytest.mark.parametrize("asked", ["id-b", "b"])
def test_choose_takes_the_hub_that_was_asked_for(asked: str) -> None:
    assert choose([hub("a"), hub("b", instances=9)], PlacementRequest("python", asked)).name == "b"


def test_choose_prefers_an_id_to_a_name() -> None:
    named_like_an_id = HubState("id-x", "id-a", True, BOTH)
    assert choose([named_like_an_id, hub("a")], PlacementRequest("python", "id-a")).name == "a"


def test_choose_says_why_there_is_none() -> None:
    with pytest.raises(HubOffline, match="joined"):
        choose([], PlacementRequest("python"))
    with pytest.raises(HubOffline, match="online"):
        choose([hub("a", online=False)], PlacementRequest("python"))
    with pytest.raises(Conflict, match="node"):
        choose([hub("a", can=PYTHON)], PlacementRequest("node"))
    with pytest.raises(NotFound, match="Hub b"):
        choose([hub("a")], PlacementRequest("python", "b"))
    with pytest.raises(HubOffline, match="Hub a"):
        choose([hub("a", online=False), hub("b")], PlacementRequest("python", "a"))
    with pytest.raises(Conflict, match="Hub a"):
        choose([hub("a", can=PYTHON), hub("b")], PlacementRequest("node", "a"))
