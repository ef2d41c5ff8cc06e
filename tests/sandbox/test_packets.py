"""Packets: limits, descriptors that never leak, and paths of any length."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sandbox.spawned import open_descriptors, socket_pair

from sth_sandbox import packets


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket_pair() as both:
        yield both


Pair = tuple[socket.socket, socket.socket]


def test_packet_arrives_with_its_descriptors_closed_on_exec(pair: Pair) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"content")
        file.flush()
        packets.send_packet(pair[0], {"op": "x"}, [file.fileno(), file.fileno()])
        message, descriptors = packets.receive_packet(pair[1])
    assert message == {"op": "x"}
    assert [os.pread(each, 16, 0) for each in descriptors] == [b"content"] * 2
    assert not any(os.get_inheritable(each) for each in descriptors)
    packets.close_all(descriptors)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 60000,
        b'{"a":' * 12000,
        b'{"a": 1' + b"0" * 60000 + b"}",
        b" " * (packets.MAX_PACKET + 1),
    ],
)
def test_packet_refused_leaves_no_descriptor(pair: Pair, data: bytes) -> None:
    before = open_descriptors()
    with tempfile.TemporaryFile() as file:
        packets.send_encoded(pair[0], data, [file.fileno()])
        with pytest.raises(packets.PacketError):
            packets.receive_packet(pair[1])
    assert open_descriptors() == before
    packets.send_packet(pair[0], {"next": 1})
    assert packets.receive_packet(pair[1]) == ({"next": 1}, [])


def test_packet_with_too_many_descriptors_is_refused_and_all_are_closed(pair: Pair) -> None:
    before = open_descriptors()
    with tempfile.TemporaryFile() as file:
        many = [file.fileno()] * (packets.MAX_DESCRIPTORS + 1)
        with pytest.raises(packets.PacketError):
            packets.send_packet(pair[0], {}, many)
        socket.send_fds(pair[0], [b"{}"], many)
        with pytest.raises(packets.PacketError):
            packets.receive_packet(pair[1])
    assert open_descriptors() == before


def test_packet_too_large_is_not_sent(pair: Pair) -> None:
    with pytest.raises(packets.PacketError):
        packets.send_packet(pair[0], {"x": "y" * packets.MAX_PACKET})
    with pytest.raises(packets.PacketError):
        packets.send_packet(pair[0], {"x": object()})


def test_packet_end_of_the_peer(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(EOFError):
        packets.receive_packet(pair[1])


def test_packet_that_would_block_is_not_sent_in_part(pair: Pair) -> None:
    pair[0].setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            packets.send_packet(pair[0], {"number": sent, "filler": "x" * 1000})
            sent += 1
    for number in range(sent):
        assert packets.receive_packet(pair[1])[0]["number"] == number
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        packets.receive_packet(pair[1])


def test_connect_by_a_path_longer_than_an_address(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        packets.with_socket_path(directory, listener.bind)
        listener.listen()
        with packets.connect(directory) as client, listener.accept()[0] as server:
            packets.send_packet(client, {"hello": True})
            assert packets.receive_packet(server)[0] == {"hello": True}


def test_connect_without_a_spawner(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match=r".*"):
        packets.connect(tmp_path)
    assert open_descriptors() == before


@given(st.binary(max_size=300))
def test_packet_decoding_of_any_bytes(data: bytes) -> None:
    try:
        message = packets.decode_packet(data)
    except packets.PacketError:
        return
    assert isinstance(message, dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_packet_encoding_keeps_the_message(message: dict[str, object]) -> None:
    data = packets.encode_packet(message)
    assert json.loads(data) == message
    assert packets.decode_packet(data) == message
