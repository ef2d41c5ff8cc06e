from dataclasses import replace
from typing import Any

import pytest

from sth_protocol import codec
from sth_protocol.errors import (
    BadHandshake,
    FrameTooLarge,
    ProtocolError,
    Revoked,
    VersionUnsupported,
)
from sth_protocol.handshake import (
    Agreed,
    Close,
    Hello,
    Welcome,
    decode_answer,
    decode_hello,
    encode_close,
    encode_hello,
    encode_welcome,
    negotiate,
)
from sth_protocol.model import HubInfo, to_map

BOOT = bytes(range(16))
HUB = HubInfo(name="hub-1", agent_version="0.1.0", arch="x86_64", os="Debian", python="3.11.2")
HELLO = Hello(agent_boot=BOOT, epoch=7, hub=HUB, broker_boot=BOOT[::-1], received=12)
WELCOME = Welcome(
    version=1,
    broker_boot=BOOT,
    resumed=True,
    received=3,
    time_ms=1_800_000_000_000,
    heartbeat_ms=15_000,
    hub="hub-1",
    space="default",
    addresses=["broker.example:8443"],
    features=["later"],
)


def hello_with(**changes: Any) -> bytes:
    return codec.pack([1, 0, 0, codec.pack({**to_map(HELLO), **changes})])


def welcome_with(**changes: Any) -> bytes:
    return codec.pack([2, 0, 0, codec.pack({**to_map(WELCOME), **changes})])


@pytest.mark.parametrize("hello", [HELLO, replace(HELLO, broker_boot=None, received=0)])
def test_hello_round_trip(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


def test_welcome_and_close_round_trip() -> None:
    assert decode_answer(encode_welcome(WELCOME)) == WELCOME
    close = decode_answer(encode_close("REVOKED", "this Hub was revoked"))
    assert close == Close("REVOKED", "this Hub was revoked")
    assert isinstance(close, Close) and isinstance(close.error(), Revoked)


def test_close_of_any_words_can_be_sent() -> None:
    close = decode_answer(encode_close("INTERNAL", "\udcff" * 100_000))
    assert isinstance(close, Close) and len(close.message) == 4096


def test_hello_of_a_newer_agent_may_have_more_fields() -> None:
    assert decode_hello(hello_with(versions=[1, 2], added={"later": 1})) == replace(
        HELLO, versions=[1, 2]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"agent_boot": b"short"},
        {"agent_boot": "x" * 16},
        {"agent_boot": None},
        {"broker_boot": b""},
        {"broker_boot": 7},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 2**63},
        {"received": -1},
        {"received": "1"},
        {"versions": []},
        {"versions": None},
        {"versions": ["1"]},
        {"versions": [True]},
        {"versions": [0]},
        {"versions": list(range(1, 66))},
        {"features": ["x" * 257]},
        {"features": ["x"] * 65},
        {"features": [1]},
        {"hub": None},
        {"hub": {}},
        {"hub": {**to_map(HUB), "name": 7}},
    ],
    ids=repr,
)
def test_hello_with_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadHandshake) as caught:
        decode_hello(hello_with(**changes))
    assert caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"broker_boot": b"short"},
        {"resumed": 1},
        {"received": -1},
        {"time_ms": None},
        {"heartbeat_ms": 0},
        {"heartbeat_ms": -5},
        {"addresses": [7]},
        {"addresses": ["x"] * 65},
        {"hub": "x" * 300},
        {"space": None},
    ],
    ids=repr,
)
def test_welcome_with_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadHandshake):
        decode_answer(welcome_with(**changes))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        codec.pack([12, 0, 0, None]),
        codec.pack([5, 1, 0, b"data"]),
        codec.pack([1, 0, 0, b"\xc1"]),
        codec.pack([1, 0, 1, codec.pack({})]),
        codec.pack([10, 0, 0, codec.pack({})]),
        encode_hello(HELLO) + encode_hello(HELLO),
        encode_hello(HELLO)[:-1],
    ],
    ids=lambda message: repr(message)[:24],
)
def test_first_message_that_is_no_handshake_is_refused(message: bytes) -> None:
    for decode in (decode_hello, decode_answer):
        with pytest.raises(BadHandshake):
            decode(message)


def test_first_message_of_the_wrong_side_is_refused() -> None:
    with pytest.raises(BadHandshake, match="WELCOME, not HELLO"):
        decode_hello(encode_welcome(WELCOME))
    with pytest.raises(BadHandshake, match="HELLO, not WELCOME"):
        decode_answer(encode_hello(HELLO))


def test_hello_that_is_too_large_is_refused() -> None:
    with pytest.raises(FrameTooLarge):
        decode_hello(hello_with(hub={**to_map(HUB), "os": "x" * 70_000}))


def test_hello_of_another_version_is_refused_whatever_else_it_says() -> None:
    message = codec.pack([1, 0, 0, codec.pack({"versions": [2, 3], "all": "new"})])
    with pytest.raises(
        VersionUnsupported, match="version 2, 3 of the link, the broker 1"
    ) as caught:
        decode_hello(message)
    assert caught.value.hint == "upgrade the older side"
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("version", [2, 0, "1", None, [1]])
def test_welcome_of_another_version_is_refused(version: object) -> None:
    with pytest.raises(VersionUnsupported):
        decode_answer(welcome_with(version=version))


def test_negotiation_takes_the_highest_version_and_the_common_features() -> None:
    hello = replace(HELLO, versions=[1, 2, 3], features=["a", "b", "c"])
    assert negotiate(hello, versions=[2, 3, 4], features=["b", "c", "d"]) == Agreed(
        3, frozenset({"b", "c"})
    )
    assert negotiate(HELLO) == Agreed(1, frozenset())


def test_negotiation_without_a_common_version_says_which_there_are() -> None:
    with pytest.raises(VersionUnsupported, match="version 1 of the link, the broker 2, 3"):
        negotiate(HELLO, versions=[3, 2])


def test_handshake_errors_close_the_link() -> None:
    assert issubclass(BadHandshake, ProtocolError)
    assert issubclass(VersionUnsupported, ProtocolError)
