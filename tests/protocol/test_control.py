from typing import Any

import pytest

from sth_protocol import codec, control, frames
from sth_protocol.control import Answer, Notice, Pages, Request, Requests, pages, parse
from sth_protocol.errors import BadFrame, InsufficientResources, NotFound, TooLarge
from sth_protocol.frames import FrameType


def test_request_is_answered_by_its_id() -> None:
    requests = Requests()
    first, message = requests.request("instance.start", spec={"main": "main.py"})
    second, _ = requests.request("instance.kill", instance="i")
    assert first != second
    assert parse(message) == Request("instance.start", first, {"spec": {"main": "main.py"}})
    answer = parse(control.reply(first, {"report": {}}))
    assert answer == Answer(first, {"report": {}})
    assert isinstance(answer, Answer)
    assert requests.settle(answer)
    assert not requests.settle(answer)
    assert requests.abandon() == [second]
    assert requests.abandon() == []


def test_request_that_fails_brings_the_error_of_the_other_side() -> None:
    answer = parse(control.failure(3, NotFound("no such Instance", hint="look with sth ps")))
    assert isinstance(answer, Answer) and isinstance(answer.error, NotFound)
    assert (answer.error.message, answer.error.hint) == ("no such Instance", "look with sth ps")


def test_request_keeps_its_id_and_type_whatever_its_fields_are() -> None:
    number, message = Requests().request("test", **{"id": "other"})
    assert parse(message) == Request("test", number, {})


def test_failure_of_any_words_can_be_sent() -> None:
    message = control.failure(1, NotFound("\udcff" * 100_000))
    assert len(frames.encode_map(FrameType.CONTROL, 0, 0, message)) < frames.MAX_MAP


def test_answer_that_nobody_waits_for_any_more_is_not_an_error() -> None:
    requests = Requests()
    number, _ = requests.request("test")
    requests.forget(number)
    requests.forget(number)
    assert not requests.settle(Answer(number, {}))


def test_answer_to_a_request_that_was_never_made_is_an_error() -> None:
    with pytest.raises(BadFrame, match="never made"):
        Requests().settle(Answer(1, {}))


def test_requests_without_answers_are_limited() -> None:
    requests = Requests()
    for _ in range(control.MAX_PENDING):
        requests.request("test")
    with pytest.raises(InsufficientResources):
        requests.request("test")


def test_notice_has_no_id() -> None:
    message = control.notice("instance.state", report={"state": "running"})
    assert parse(message) == Notice("instance.state", {"report": {"state": "running"}})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 7},
        {"type": ""},
        {"type": "x" * 65},
        {"type": "test", "id": "1"},
        {"type": "test", "id": 0},
        {"type": "test", "id": True},
        {"type": "test", "id": None},
        {"type": "reply"},
        {"type": "reply", "id": 1},
        {"type": "reply", "id": 1, "result": []},
        {"type": "reply", "id": 1, "error": "text"},
        {"type": "reply", "id": 1, "result": {}, "error": {}},
        {"type": "reply", "result": {}},
    ],
    ids=repr,
)
def test_control_message_that_is_none_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadFrame):
        parse(message)


def test_pages_of_nothing_are_one_empty_page() -> None:
    assert pages([]) == [[]]


def test_pages_fit_into_control_messages() -> None:
    items = [{"instance": "i" * 36, "text": "x" * 900} for _ in range(500)]
    cut = pages(items)
    assert len(cut) > 1
    assert [item for page in cut for item in page] == items
    for number, page in enumerate(cut):
        _, message = Requests().request("hub.sync", instances=page, page=number, pages=len(cut))
        assert len(codec.pack(message)) <= frames.MAX_MAP


def test_pages_refuse_an_item_that_fits_into_none() -> None:
    with pytest.raises(TooLarge):
        pages(["x" * 70_000])


def test_pages_refuse_a_list_that_would_never_end() -> None:
    with pytest.raises(TooLarge):
        pages(["x" * 90] * (control.MAX_PAGES + 1), page_bytes=100)


def test_pages_have_no_more_items_than_the_peer_reads() -> None:
    cut = pages([0] * 50_000)
    assert max(map(len, cut)) <= codec.MAX_ITEMS
    assert sum(map(len, cut)) == 50_000


def test_pages_come_together_again() -> None:
    collector = Pages()
    assert collector.add(0, 3, [1, 2]) is None
    assert collector.add(1, 3, []) is None
    assert collector.add(2, 3, [3]) == [1, 2, 3]
    assert collector.add(0, 1, []) == []


def test_pages_begin_anew_with_the_first() -> None:
    collector = Pages()
    assert collector.add(0, 2, ["old"]) is None
    assert collector.add(0, 2, ["new"]) is None
    assert collector.add(1, 2, ["end"]) == ["new", "end"]


@pytest.mark.parametrize(
    ("page", "count", "items"),
    [
        (1, 3, []),
        (2, 2, []),
        (-1, 3, []),
        (0, 0, []),
        (0, 5000, []),
        (0, 3, {}),
        ("0", 3, []),
        (0, None, []),
        (True, 3, []),
    ],
)
def test_pages_out_of_order_or_wrong_are_refused(
    page: object, count: object, items: object
) -> None:
    with pytest.raises(BadFrame):
        Pages().add(page, count, items)


def test_pages_whose_number_changes_are_refused() -> None:
    collector = Pages()
    collector.add(0, 3, [])
    with pytest.raises(BadFrame):
        collector.add(1, 4, [])
