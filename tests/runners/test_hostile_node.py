"""Programs that fail in the ugliest ways: the agent still learns why."""

import pytest
from tests.runners.conftest import Start

_GETTER = "{ get() { throw 1; } }"
THROWN = {
    "nothing": "null",
    "undefined": "undefined",
    "a symbol": "Symbol('odd')",
    "a bare object": "Object.create(null)",
    "an object without a text": "{ toString() { throw 1; } }",
    "an error without a message": f"Object.defineProperty(new Error(), 'message', {_GETTER})",
    "an error without a stack": f"Object.defineProperty(new Error('x'), 'stack', {_GETTER})",
    "an error without a class": "Object.assign(new Error('x'), { constructor: null })",
    "an error that tells nothing": "new Proxy(new Error('x'), { get() { throw 1; } })",
    "a long error": "new Error('x'.repeat(20_000_000))",
    "half a character": "new Error('\\ud800')",
}


@pytest.mark.parametrize("thrown", list(THROWN.values()), ids=list(THROWN))
@pytest.mark.parametrize("where", ["loading", "running", "later"])
async def test_whatever_is_thrown_is_told(start_node: Start, thrown: str, where: str) -> None:
    throw = f"throw {thrown};"
    source = {
        "loading": throw,
        "running": f"module.exports = function () {{ {throw} }};",
        "later": f"module.exports = () => new Promise(() => setTimeout(() => {{ {throw} }}));",
    }[where]
    async with start_node(source) as runner:
        ended = await runner.wait()
    errors = ended.of_type("error")
    assert ended.code == (22 if where == "loading" else 23)
    assert len(errors) == 1
    assert isinstance(errors[0]["message"], str)
    assert len(errors[0]["message"]) < 10_000


@pytest.mark.parametrize("word", ["10n", "'x'.repeat(3_000_000)", "module"])
async def test_declaration_that_cannot_be_told_is_a_bad_entry_point(
    start_node: Start, word: str
) -> None:
    source = f"module.exports = [{{ requires: {word}, contentType: 'text/plain' }}, () => 'x'];"
    async with start_node(source) as runner:
        ended = await runner.wait()
    assert ended.code == 21
    assert "cannot be told" in ended.of_type("error")[0]["message"]


async def test_error_is_told_though_standard_error_is_closed(start_node: Start) -> None:
    source = "module.exports = () => { require('fs').closeSync(2); throw new Error('dark'); };"
    async with start_node(source) as runner:
        ended = await runner.wait()
    assert (ended.code, ended.of_type("error")[0]["message"]) == (23, "Error: dark")
