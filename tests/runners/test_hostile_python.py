"""Programs that fail in the ugliest ways: the agent still learns why."""

import pytest
from tests.runners.conftest import Start


async def error_of(start_python: Start, source: str) -> tuple[int, str]:
    """Exit code and message."""
    async with start_python(source) as runner:
        ended = await runner.wait()
    error = ended.of_type("error")[0]
    assert error["exit_code"] == ended.code
    return ended.code, error["message"]


@pytest.mark.parametrize("base", ["BaseException", "KeyboardInterrupt", "GeneratorExit"])
async def test_whatever_is_raised_while_loading_is_told(start_python: Start, base: str) -> None:
    source = f"""
        class Odd({base}):
            pass

        raise Odd("not today")
    """
    assert await error_of(start_python, source) == (22, "Odd: not today")


@pytest.mark.parametrize("word", ["object()", "'x' * 3_000_000", "{1: {(): 2}}"])
async def test_declaration_that_cannot_be_told_is_a_bad_entry_point(
    start_python: Start, word: str
) -> None:
    source = f"""
        provides = {{"provides": {word}}}

        async def run(context, input):
            yield "never"
    """
    code, message = await error_of(start_python, source)
    assert code == 21
    assert "cannot be told" in message


async def test_error_is_told_though_standard_error_is_closed(start_python: Start) -> None:
    source = """
        import os

        async def run(context, input):
            os.close(2)
            raise ValueError("into the dark")
    """
    assert await error_of(start_python, source) == (23, "ValueError: into the dark")


async def test_error_without_a_text_is_told(start_python: Start) -> None:
    source = """
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError

        async def run(context, input):
            raise Odd
    """
    assert await error_of(start_python, source) == (23, "Odd: its text cannot be told")


async def test_half_a_character_in_an_error_is_told(start_python: Start) -> None:
    source = """
        async def run(context, input):
            raise ValueError("\\ud800")
    """
    assert (await error_of(start_python, source))[0] == 23
