"""Control messages: requests and their answers, notices, and long lists in pages.

    request  {type, id, ...fields}          notice  {type, ...fields}
    answer   {type: "reply", id, result: {...}} or {type: "reply", id, error: {code, message, hint}}

Pure book-keeping: who waits for an answer, and for how long, is the driver's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sth_protocol import codec, frames
from sth_protocol.errors import BadFrame, InsufficientResources, SthError, TooLarge, from_wire

Json = dict[str, Any]

REPLY: Final = "reply"
MAX_PENDING: Final = 4096
MAX_PAGES: Final = 1024
# A page with its envelope stays below the 64 KiB of a control message.
PAGE_BYTES: Final = 60 * 1024
PAGE_ITEMS: Final = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """The peer asks for something; answer with `reply` or `failure`."""

    type: str
    id: int
    fields: Json


@dataclass(frozen=True, slots=True)
class Notice:
    """The peer tells something; there is no answer."""

    type: str
    fields: Json


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to request `id` of ours: its result, or its error."""

    id: int
    result: Json
    error: SthError | None = None


Message = Request | Notice | Answer


def parse(message: Mapping[str, Any]) -> Message:
    """What a control message is. BadFrame if it is nothing of the kind."""
    kind = message.get("type")
    if not isinstance(kind, str) or not 1 <= len(kind) <= 64:
        raise BadFrame("a control message without a type")
    if kind == REPLY:
        return _parse_answer(message)
    fields = {key: value for key, value in message.items() if key not in ("type", "id")}
    if "id" not in message:
        return Notice(kind, fields)
    return Request(kind, _parse_id(message), fields)


def _parse_answer(message: Mapping[str, Any]) -> Answer:
    number = _parse_id(message)
    result, error = message.get("result"), message.get("error")
    if isinstance(error, dict) and result is None:
        return Answer(number, {}, from_wire(error))
    if isinstance(result, dict) and error is None:
        return Answer(number, result)
    raise BadFrame("a reply has a map for its result, or a map for its error")


def _parse_id(message: Mapping[str, Any]) -> int:
    number = message.get("id")
    if type(number) is not int or not 0 < number < 2**63:
        raise BadFrame("the id of a control message is a positive integer")
    return number


def notice(type: str, **fields: object) -> Json:
    """A message without an answer."""
    return {**fields, "type": type}


def reply(id: int, result: Mapping[str, object] | None = None) -> Json:
    """The good answer to a request."""
    return {"type": REPLY, "id": id, "result": dict(result or {})}


def failure(id: int, error: SthError) -> Json:
    """The bad answer to a request; a long text is cut."""
    return {
        "type": REPLY,
        "id": id,
        "error": {key: frames.clean(value) for key, value in error.to_wire().items()},
    }


class Requests:
    """Our requests of one session that are not answered yet."""

    __slots__ = ("_last", "_pending")

    def __init__(self) -> None:
        self._last = 0
        self._pending: dict[int, str] = {}

    def request(self, type: str, **fields: object) -> tuple[int, Json]:
        """A new id, and the message to send. InsufficientResources when too many are open."""
        if len(self._pending) >= MAX_PENDING:
            raise InsufficientResources(f"{len(self._pending)} requests wait for an answer")
        self._last += 1
        self._pending[self._last] = type
        return self._last, {**fields, "type": type, "id": self._last}

    def settle(self, answer: Answer) -> bool:
        """Take an answer in; False if nobody waits for it any more. BadFrame if nobody asked."""
        if answer.id > self._last:
            raise BadFrame(f"a reply to request {answer.id}, which was never made")
        return self._pending.pop(answer.id, None) is not None

    def forget(self, id: int) -> None:
        """Nobody waits for this answer any more."""
        self._pending.pop(id, None)

    def abandon(self) -> list[int]:
        """Forget all, at the end of a session; the ids that will never be answered."""
        ids = list(self._pending)
        self._pending.clear()
        return ids


def pages(items: Sequence[object], *, page_bytes: int = PAGE_BYTES) -> list[list[object]]:
    """`items` cut into lists that fit into a control message each; one empty page for none.
    TooLarge for an item that fits into none, and for more than 1024 pages."""
    result: list[list[object]] = [[]]
    room = page_bytes
    for item in items:
        size = len(codec.pack(item))
        if size > page_bytes:
            raise TooLarge(f"an item of {size} bytes; a page holds {page_bytes}")
        if size > room or len(result[-1]) == PAGE_ITEMS:
            result.append([])
            room = page_bytes
        result[-1].append(item)
        room -= size
    if len(result) > MAX_PAGES:
        raise TooLarge(f"a list of {len(result)} pages; at most {MAX_PAGES} are read")
    return result


class Pages:
    """A list that comes in pages: `{page, pages, <items>}`, page 0 first."""

    __slots__ = ("_count", "_items", "_next")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._next = 0
        self._count = 0

    def add(self, page: object, count: object, items: object) -> list[Any] | None:
        """Take a page in; the whole list with the last one, None before. Page 0 begins anew.
        BadFrame for a page out of order."""
        if type(page) is not int or type(count) is not int or not isinstance(items, list):
            raise BadFrame("a page has its number, the number of pages, and a list")
        if not 0 <= page < count <= MAX_PAGES:
            raise BadFrame(f"page {page} of {count}; at most {MAX_PAGES} are read")
        if page == 0:
            self._items, self._next, self._count = [], 0, count
        if page != self._next or count != self._count:
            raise BadFrame(f"page {page} of {count} where {self._next} of {self._count} belongs")
        self._items += items
        self._next += 1
        if self._next < self._count:
            return None
        whole, self._items, self._next, self._count = self._items, [], 0, 0
        return whole
