"""Typed look-ups in a JSON object from the broker: absent is empty, of another type is refused."""

from collections.abc import Mapping

from sth_protocol.errors import Unreachable

Raw = Mapping[str, object]


class Fields:
    """One JSON object; `what` names it in errors. Every method raises Unreachable for a value of
    another type: then it was no broker of ours that answered."""

    def __init__(self, what: str, value: object) -> None:
        if not isinstance(value, Mapping):
            raise _unexpected(what, f"an object is needed, not {type(value).__name__}")
        self.what = what
        self.raw: Raw = value

    def text(self, *keys: str) -> str:
        """The first of `keys` that is there; a number as text; "" if none is."""
        for key in keys:
            value = self.raw.get(key)
            if isinstance(value, str):
                return value
            if _is_number(value):
                return str(value)
            if value is not None:
                raise self._wrong(key, value)
        return ""

    def number(self, key: str) -> float:
        value = self.raw.get(key)
        if value is None:
            return 0.0
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._wrong(key, value)
        return value

    def integer(self, key: str) -> int | None:
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value)
        return value

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._wrong(key, value)
        return value

    def mapping(self, key: str) -> Raw:
        value = self.raw.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, value)
        return value

    def array(self, key: str) -> tuple[object, ...]:
        value = self.raw.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._wrong(key, value)
        return tuple(value)

    def _wrong(self, key: str, value: object) -> Unreachable:
        return _unexpected(self.what, f"{key} is {type(value).__name__}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unexpected(what: str, why: str) -> Unreachable:
    return Unreachable(f"the answer is not a {what}: {why}", hint="is the URL that of a broker?")
