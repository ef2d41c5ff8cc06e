"""Names, tokens, maps and control messages: any input is read as what it is, or refused."""

import base64
import contextlib
import zlib
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from sth_protocol import codec, ids
from sth_protocol.control import Pages, pages, parse
from sth_protocol.errors import BadFrame, JoinTokenMalformed
from sth_protocol.jointoken import PREFIX, JoinToken, format_token, parse_token
from sth_protocol.model import StartSpec, from_map, to_map

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)
SPEC = StartSpec(instance="i", sequence="s", sha256="0", language="python", main="main.py")


@given(st.text())
def test_label_from_any_text_is_a_hub_name(text: str) -> None:
    label = ids.label_from(text)
    assert ids.check_hub_name(label) == label


@given(st.binary())
def test_codec_answers_any_bytes_with_a_value_or_bad_frame(data: bytes) -> None:
    try:
        value = codec.unpack(data)
    except BadFrame:
        return
    assert isinstance(codec.pack(value), bytes)


@given(VALUES)
def test_codec_writes_what_any_msgpack_reads(value: Any) -> None:
    assert msgpack.unpackb(codec.pack(value), raw=False) == value


@given(VALUES, st.data())
def test_codec_sees_every_cut(value: Any, data: st.DataObject) -> None:
    message = codec.pack(1) + codec.pack([value])
    cut = data.draw(st.integers(2, len(message) - 1))
    try:
        list(codec.unpack_all(message[:cut]))
    except BadFrame:
        return
    raise AssertionError("a value that is cut was not missed")


@given(st.dictionaries(st.sampled_from(sorted(to_map(SPEC))), VALUES))
def test_model_answers_any_map_with_a_value_or_bad_frame(changes: dict[str, Any]) -> None:
    try:
        spec = from_map(StartSpec, {**to_map(SPEC), **changes})
    except BadFrame:
        return
    assert to_map(spec) == {**to_map(SPEC), **changes}


@given(st.text())
def test_token_of_any_text_is_read_or_refused(text: str) -> None:
    for each in (text, PREFIX + text):
        with contextlib.suppress(JoinTokenMalformed):
            parse_token(each)


@given(st.one_of(st.binary(max_size=300), VALUES.map(codec.pack)))
def test_token_of_any_bytes_under_a_right_checksum_is_read_or_refused(body: bytes) -> None:
    checked = body + zlib.crc32(body).to_bytes(4, "big")
    with contextlib.suppress(JoinTokenMalformed):
        parse_token(PREFIX + base64.urlsafe_b64encode(checked).decode().rstrip("="))


@given(
    st.builds(
        JoinToken,
        addresses=st.lists(st.text(max_size=40), min_size=1, max_size=4).map(tuple),
        space=st.text(max_size=20),
        pins=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=2).map(tuple),
        token_id=st.binary(min_size=6, max_size=6),
        secret=st.binary(min_size=16, max_size=16),
        expires=st.integers(0, 2**40),
    )
)
def test_token_of_any_fields_comes_back_as_it_was(token: JoinToken) -> None:
    assert parse_token(format_token(token)) == token


@given(st.dictionaries(st.sampled_from(["type", "id", "result", "error", "other"]), VALUES))
def test_control_message_of_any_fields_is_read_or_refused(message: dict[str, Any]) -> None:
    for each in (message, {**message, "type": "reply"}):
        with contextlib.suppress(BadFrame):
            parse(each)


@given(st.lists(st.text(max_size=200)), st.integers(210 * 4, 2000))
def test_pages_of_any_list_come_together_as_it_was(items: list[str], page_bytes: int) -> None:
    cut = pages(items, page_bytes=page_bytes)
    collector = Pages()
    for number, page in enumerate(cut):
        whole = collector.add(number, len(cut), page)
        assert (whole is None) is (number < len(cut) - 1)
    assert whole == items
