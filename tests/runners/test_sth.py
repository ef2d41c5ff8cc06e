"""The authors' module: what a Sequence's own tests do with it."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from sth import Context, sequence
from sth.testing import TestContext, run


@sequence(input="text/x-ndjson", output="application/x-ndjson")
async def scale(
    rows: AsyncIterator[dict[str, float]], ctx: Context, factor: float = 1.0
) -> AsyncIterator[dict[str, float]]:
    async for row in rows:
        ctx.emit("seen", row["temp"])
        yield {"temp": row["temp"] * factor}


async def test_run_gives_what_the_sequence_gives_out() -> None:
    context = TestContext()
    assert await run(scale, [{"temp": 1}], context=context, factor=2) == [{"temp": 2}]
    assert context.emitted == [("seen", 1)]


async def test_run_fills_parameters_from_arguments_first() -> None:
    assert await run(scale, [{"temp": 1}], 3, factor=2) == [{"temp": 3}]


async def test_run_calls_an_unmarked_function_as_the_original_does() -> None:
    def legacy(context: Context, input: Iterable[int], step: int) -> Iterator[int]:
        for number in input:
            yield number + step

    assert await run(legacy, [1, 2], 10) == [11, 12]


@pytest.mark.parametrize(("value", "items"), [(None, []), ("text", ["text"]), ([1, 2], [1, 2])])
async def test_run_takes_a_plain_value(value: Any, items: list[Any]) -> None:
    def plain(context: Context, input: object) -> Any:
        return value

    assert await run(plain) == items


async def test_run_takes_a_coroutine() -> None:
    async def consume(context: Context, input: Any) -> dict[str, Any]:
        return {"first": await input.read(), "then": await input.read()}

    assert await run(consume, [5]) == [{"first": 5, "then": None}]


async def test_run_raises_what_the_sequence_raises() -> None:
    def failing(context: Context, input: object) -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        await run(failing)


async def test_a_parameter_that_nothing_fills_is_named() -> None:
    @sequence()
    async def needs(rows: object, limit: int) -> None: ...

    with pytest.raises(TypeError, match="'limit'"):
        await run(needs)


async def test_too_many_arguments_are_counted() -> None:
    @sequence()
    async def takes_none(rows: object) -> None: ...

    with pytest.raises(TypeError, match="2 arguments too many"):
        await run(takes_none, [], 1, 2)


async def test_context_records_handlers_and_calls_them() -> None:
    heard: list[Any] = []

    async def listening(context: Context, input: object) -> None:
        context.on("news", heard.append)
        context.set_health_check(lambda: True)
        await context.keep_alive(2)
        context.end()

    context = TestContext()
    await run(listening, context=context)
    context.send("news", "hello")
    assert heard == ["hello"]
    assert (context.kept_alive, context.ended, len(context.health_checks)) == (2, True, 1)
