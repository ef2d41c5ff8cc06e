import pytest

from sth_protocol import codec
from sth_protocol.errors import BadFrame
from sth_protocol.model import HubInfo, InstanceReport, StartSpec, from_map, to_map

HUB = HubInfo(
    name="hub-1",
    agent_version="0.1.0",
    arch="aarch64",
    os="Debian 12",
    python="3.11.2",
    sandbox={"seccomp": {"state": "on"}},
    labels={"room": "7"},
)
SPEC = StartSpec(
    instance="i" * 36,
    sequence="s",
    sha256="0" * 64,
    language="python",
    main="main.py",
    args=[1, "two", {"three": 3}],
)
REPORT = InstanceReport(instance="i" * 36, sequence="s", state="running", started_ms=17)


@pytest.mark.parametrize("value", [HUB, SPEC, REPORT], ids=lambda value: type(value).__name__)
def test_model_comes_back_from_the_wire_as_it_was(value: object) -> None:
    assert from_map(type(value), codec.unpack(codec.pack(to_map(value)))) == value


def test_model_fills_defaults_and_ignores_what_a_newer_peer_adds() -> None:
    report = from_map(
        InstanceReport,
        {"instance": "i", "sequence": "s", "state": "running", "added_later": [1]},
    )
    assert report == InstanceReport("i", "s", "running")
    assert report.exit_code == -1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instance", 7),
        ("instance", None),
        ("state", "sleeping"),
        ("state", ["running"]),
        ("started_ms", True),
        ("started_ms", 1.5),
        ("error", []),
    ],
)
def test_model_refuses_a_field_that_does_not_fit_and_names_it(field: str, value: object) -> None:
    values = {"instance": "i", "sequence": "s", "state": "running", field: value}
    with pytest.raises(BadFrame, match=rf"InstanceReport\.{field}"):
        from_map(InstanceReport, values)


@pytest.mark.parametrize("labels", [{"a": 1}, {1: "a"}, ["a"]])
def test_model_refuses_what_is_wrong_inside_a_map(labels: object) -> None:
    with pytest.raises(BadFrame, match="labels"):
        from_map(HubInfo, {**to_map(HUB), "labels": labels})


def test_model_refuses_a_missing_field_and_names_it() -> None:
    with pytest.raises(BadFrame, match=r"StartSpec\.sha256 is missing"):
        from_map(StartSpec, {"instance": "i", "sequence": "s"})


@pytest.mark.parametrize("values", [None, [], 7, "text", b"bytes"])
def test_model_refuses_what_is_no_map(values: object) -> None:
    with pytest.raises(BadFrame, match="a map is needed"):
        from_map(StartSpec, values)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), b"bytes", {7: "seven"}, {b"k": 1}])
def test_model_refuses_what_json_cannot_say(value: object) -> None:
    values = {"instance": "i", "sequence": "s", "state": "running", "error": {"deep": [value]}}
    with pytest.raises(BadFrame, match=r"InstanceReport\.error"):
        from_map(InstanceReport, values)


def test_model_takes_json_of_any_depth() -> None:
    deep: list[object] = [1.5, None, True, "text"]
    for _ in range(5000):
        deep = [deep]
    values = {**to_map(SPEC), "args": deep}
    assert from_map(StartSpec, values).args is deep
