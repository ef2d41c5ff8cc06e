"""The few operators that Sequences written for the original call on their input."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any


class Derived:
    """An asynchronous stream with `map`, `filter` and `each`; functions may be coroutines."""

    def __aiter__(self) -> AsyncIterator[Any]:
        raise NotImplementedError

    def map(self, function: Callable[[Any], Any]) -> "Derived":
        """A stream of what `function` returns for every item."""

        async def mapped() -> AsyncIterator[Any]:
            async for item in self:
                yield await _settled(function(item))

        return _Stream(mapped())

    def filter(self, function: Callable[[Any], Any]) -> "Derived":
        """A stream of the items for which `function` says yes."""

        async def filtered() -> AsyncIterator[Any]:
            async for item in self:
                if await _settled(function(item)):
                    yield item

        return _Stream(filtered())

    def each(self, function: Callable[[Any], Any]) -> "Derived":
        """The same items, each given to `function` on its way."""

        async def passed() -> AsyncIterator[Any]:
            async for item in self:
                await _settled(function(item))
                yield item

        return _Stream(passed())


class _Stream(Derived):
    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items


async def _settled(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
