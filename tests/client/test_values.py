"""What people type and read."""

import pytest

from sth_client import values
from sth_protocol.errors import BadRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("10s", 10), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("250ms", 0.25)],
)
def test_length_of_time_is_read(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 h", "1e3", "one"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        values.parse_duration(text)


def test_arguments_are_a_json_array() -> None:
    assert values.parse_arguments('["a", 1.5, {"k": null}]') == ["a", 1.5, {"k": None}]
    for text in ("{}", '"a"', "a", ""):
        with pytest.raises(BadRequest, match="--args is not"):
            values.parse_arguments(text)


def test_settings_change_a_copy_of_the_config() -> None:
    config: dict[str, object] = {"a": {"b": 1, "keep": 2}}
    changed = values.apply_settings(config, ["a.b=3", "text=hello", "list=[1]", "eq=x=y", "n.m=no"])
    assert changed == {
        "a": {"b": 3, "keep": 2},
        "text": "hello",
        "list": [1],
        "eq": "x=y",
        "n": {"m": "no"},
    }
    assert config == {"a": {"b": 1, "keep": 2}}


@pytest.mark.parametrize("setting", ["", "key", "=value", "a..b=1", "a.b.c=1"])
def test_setting_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(BadRequest):
        values.apply_settings({"a": {"b": 1}}, [setting])


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200000, "2d")]
)
def test_age_is_short(seconds: int, shown: str) -> None:
    assert values.age("1970-01-01T00:00:00.000Z", seconds) == shown


def test_age_of_no_time_is_empty() -> None:
    assert values.age("", 0) == ""


def test_past_is_told_from_future() -> None:
    assert values.is_past("1970-01-01T00:00:10Z", 10)
    assert not values.is_past("1970-01-01T00:00:10Z", 9)
    assert not values.is_past("", 9)


def test_log_line_is_made_readable() -> None:
    line = values.log_line(b'{"msg":"hi","level":"warn","ts":1700000000000,"from":"x"}')
    assert line.endswith("WARN  hi")
    assert values.log_line(b'{"msg":{"k":1},"level":"info","ts":0}').endswith('INFO  {"k": 1}')


@pytest.mark.parametrize(
    "line", [b"plain", b"{}", b"[1]", b'{"msg":"m","level":"l","ts":1e300}', b"\xff"]
)
def test_line_that_is_no_log_entry_stays_as_it_is(line: bytes) -> None:
    assert values.log_line(line) == line.decode("utf-8", "replace")
